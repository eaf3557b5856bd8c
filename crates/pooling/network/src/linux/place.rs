//! One namespace under our care: what was applied to it, and how to bring it to a new plan.

use super::namespace::Namespace;
use super::netlink::FilterWatch;
use super::observe;
use super::plan::{self, LinkKind, Plan, Queues, State};
use super::programs::{self, Program};
use super::queues;
use crate::NetworkError;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long what was applied is trusted before it is compared with the kernel again.
pub const TRUST: Duration = Duration::from_secs(60);

/// A namespace under our care.
pub struct Place {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// What names of devices of ours begin with; empty where all are.
    prefix: String,
    /// What it holds as far as we know; `None` is to look.
    state: Option<State>,
    /// When it was looked at.
    looked: Option<Instant>,
    rules: Option<Rules>,
    /// Whether it has never had rules.
    pristine: bool,
    settings: Vec<(String, String)>,
    /// Queues as applied; `None` is not known.
    queues: Option<Queues>,
}

/// Rules as applied, and the kernel's count of changes right after.
struct Rules {
    text: String,
    generation: Option<u32>,
}

impl Place {
    /// A place that has not been looked at.
    pub fn new(namespace: Namespace, prefix: String) -> Self {
        Self {
            namespace: Arc::new(namespace),
            prefix,
            state: None,
            looked: None,
            rules: None,
            pristine: false,
            settings: Vec::new(),
            queues: None,
        }
    }

    /// A namespace that has just been made: it is empty.
    pub fn fresh(namespace: Namespace, prefix: String) -> Self {
        let known = Self::new(namespace, prefix);
        Self {
            state: Some(State::default()),
            looked: Some(Instant::now()),
            pristine: true,
            queues: Some(Queues::new()),
            ..known
        }
    }

    /// What it holds as far as is known.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Whether it is time to compare with the kernel.
    pub fn is_stale(&self) -> bool {
        self.state.is_none() || self.looked.is_none_or(|at| at.elapsed() > TRUST)
    }

    /// Forgets what is known: the next pass looks.
    pub fn distrust(&mut self) {
        self.state = None;
        self.rules = None;
        self.pristine = false;
        self.settings.clear();
        self.queues = None;
    }

    /// Forgets one device: it was made anew from elsewhere.
    pub fn forget_link(&mut self, name: &str) {
        if let Some(state) = &mut self.state {
            state.links.remove(name);
        }
        if let Some(queues) = &mut self.queues {
            queues.remove(name);
        }
    }

    /// Looks, if it is time.
    pub fn look(&mut self, wanted: observe::Wanted) -> Result<(), NetworkError> {
        if !self.is_stale() {
            return Ok(());
        }
        let name = self.namespace.name();
        let (state, generation) = self.namespace.inside(|| {
            let generation = FilterWatch::open().and_then(|watch| watch.generation()).ok();
            (observe::state(name, &self.prefix, wanted), generation)
        })?;
        self.state = Some(state?);
        self.looked = Some(Instant::now());
        self.settings.clear();
        if self.rules.as_ref().is_some_and(|rules| rules.generation.is_none() || rules.generation != generation) {
            self.rules = None;
        }
        Ok(())
    }

    /// Writes settings and rules. Says whether the rules changed.
    pub fn guard(&mut self, plan: &Plan) -> Result<bool, NetworkError> {
        let same_rules = self.rules.as_ref().is_some_and(|rules| rules.text == plan.rules);
        let same_settings = self.settings == plan.settings;
        if same_rules && same_settings {
            return Ok(false);
        }
        let name = self.namespace.name();
        let mut text = String::new();
        if !self.pristine {
            for (family, table) in &plan.tables {
                text.push_str(&format!("add table {family} {table}\ndelete table {family} {table}\n"));
            }
        }
        text.push_str(&plan.rules);
        // In namespaces that are wholly ours nobody else writes.
        let alone = self.prefix.is_empty();
        let generation = self.namespace.inside(|| {
            if !same_settings {
                settings_write(name, &plan.settings)?;
            }
            if same_rules {
                return Ok(None);
            }
            programs::rules(name, &text, alone)
        })??;
        self.settings = plan.settings.clone();
        if !same_rules {
            self.pristine = false;
            self.rules = Some(Rules { text: plan.rules.clone(), generation });
        }
        Ok(!same_rules)
    }

    /// Makes, changes and removes devices, addresses, routes and neighbours. Returns the state before.
    pub fn build(&mut self, plan: &Plan, node: &Namespace) -> Result<State, NetworkError> {
        let before = self.state.clone().unwrap_or_default();
        let steps = plan::steps(self.namespace.name(), plan, &before);
        if steps.is_empty() {
            return Ok(before);
        }
        let name = self.namespace.name();
        let done = (|| {
            if !steps.removals.is_empty() {
                self.namespace.inside(|| programs::batch_removals(name, Program::Ip, &steps.removals))??;
            }
            if !steps.from_node.is_empty() {
                node.inside(|| programs::batch(node.name(), Program::Ip, &steps.from_node))??;
            }
            self.namespace.inside(|| {
                programs::batch(name, Program::Ip, &steps.changes)?;
                programs::batch(name, Program::Bridge, &steps.forwards)?;
                settings_write(name, &plan.device_settings)?;
                programs::batch(name, Program::Ip, &steps.late)
            })?
        })();
        match done {
            Ok(()) => {
                self.state = Some(plan::reached(plan, &before));
                Ok(before)
            }
            Err(error) => {
                self.distrust();
                Err(error)
            }
        }
    }
}

impl Place {
    /// Makes the queues of the plan, after its devices. `before` is the state before those were made. Devices without
    /// their queues carry traffic all the same: what fails is told and tried again in the next pass.
    pub fn queue(&mut self, plan: &Plan, before: &State) -> Result<(), NetworkError> {
        let name = self.namespace.name();
        let mut current = match self.queues.take() {
            Some(current) => current,
            None => self.namespace.inside(|| queues::present(name))??,
        };
        current.retain(|device, _| before.links.contains_key(device) && plan.links.contains_key(device));
        if current != plan.queues {
            let gone = current.keys().filter(|device| plan.queues.get(*device) != current.get(*device));
            let gone: Vec<String> = gone.cloned().collect();
            let new = plan.queues.iter().filter(|(device, lines)| current.get(*device) != Some(*lines));
            let new: Vec<String> = new.flat_map(|(_, lines)| lines.iter().cloned()).collect();
            self.namespace.inside(|| queues::replace(name, &gone, &new))??;
        }
        self.queues = Some(plan.queues.clone());
        Ok(())
    }
}

/// The cables that the plan makes and that were not there before: other end's place and name.
pub fn new_cables<'a>(plan: &'a Plan, before: &State) -> Vec<(&'a str, &'a str)> {
    plan.links
        .iter()
        .filter(|(name, _)| !before.links.contains_key(*name))
        .filter_map(|(_, link)| match &link.kind {
            LinkKind::Cable { peer, place } => Some((place.as_str(), peer.as_str())),
            LinkKind::Bridge | LinkKind::Tap | LinkKind::CableEnd | LinkKind::Tunnel(_) | LinkKind::Detour => None,
        })
        .collect()
}

/// Writes kernel settings of the calling thread's namespace where they differ.
pub fn settings_write(place: &str, settings: &[(String, String)]) -> Result<(), NetworkError> {
    for (key, value) in settings {
        let failed = |source| NetworkError::Setting { place: place.to_owned(), setting: format!("net/{key}"), source };
        let path = format!("/proc/sys/net/{key}");
        let current = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && key.starts_with("bridge/") => {
                // The module that shows bridged packets to the filter; where it is built in, this is never reached.
                let _ = Command::new("modprobe").arg("br_netfilter").status();
                std::fs::read_to_string(&path)
            }
            other => other,
        };
        if current.map_err(failed)?.trim() != value {
            std::fs::write(&path, value).map_err(failed)?;
        }
    }
    Ok(())
}
