//! One client: what it did, what was acknowledged, and what it therefore expects to find.

use crate::books::{Books, Listed};
use crate::session::{Session, id};
use anyhow::{Context as _, Result, bail, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};

/// What is created and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Server,
    Port,
    Network,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Server, Kind::Port, Kind::Network];

    /// The most of its kind that a worker has at a time: together they stay within the project's quota.
    const fn count_max(self) -> usize {
        match self {
            Kind::Server | Kind::Port => 3,
            Kind::Network => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Kind::Server => "server",
            Kind::Port => "port",
            Kind::Network => "network",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Kind::Server => "/compute/v2.1/servers",
            Kind::Port => "/network/v2.0/ports",
            Kind::Network => "/network/v2.0/networks",
        }
    }
}

/// What the worker knows of a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Its creation was acknowledged.
    Present { id: String },
    /// Its creation was asked for, but the cloud was killed before it answered.
    PerhapsCreated,
    /// Its deletion was asked for, but the cloud was killed before it answered.
    PerhapsDeleted { id: String },
    /// Its deletion was acknowledged.
    Deleted { id: String },
}

/// A thing, by its name, which no other has.
#[derive(Debug, Clone)]
pub struct Thing {
    pub kind: Kind,
    pub name: String,
    pub known: Known,
}

pub struct Worker {
    number: usize,
    pub session: Session,
    random: StdRng,
    image: String,
    network: String,
    pub things: Vec<Thing>,
    /// How many calls were acknowledged.
    pub acknowledged: u64,
    made: u64,
}

impl Worker {
    pub fn new(number: usize, session: Session, random: StdRng, image: String, network: String) -> Self {
        Self { number, session, random, image, network, things: Vec::new(), acknowledged: 0, made: 0 }
    }

    /// Creates and deletes until no answer comes.
    pub async fn work_until_killed(&mut self, round: u64) -> Result<()> {
        loop {
            let kind = Kind::ALL[self.random.random_range(0..Kind::ALL.len())];
            let present: Vec<usize> = (0..self.things.len())
                .filter(|&at| self.things[at].kind == kind && matches!(self.things[at].known, Known::Present { .. }))
                .collect();
            let full = present.len() >= kind.count_max();
            let answered = if full || (!present.is_empty() && self.random.random_ratio(2, 5)) {
                let at = present[self.random.random_range(0..present.len())];
                self.delete(at).await?
            } else {
                self.create(kind, round).await?
            };
            if !answered {
                return Ok(());
            }
            self.acknowledged += 1;
        }
    }

    /// Creates a thing; whether that was answered.
    async fn create(&mut self, kind: Kind, round: u64) -> Result<bool> {
        self.made += 1;
        let name = format!("{}-{}-{round}-{}", kind.name(), self.number, self.made);
        let body = self.body(kind, &name);
        self.things.push(Thing { kind, name, known: Known::PerhapsCreated });
        let Ok((status, answer)) = self.session.call(Method::POST, kind.path(), Some(&body)).await else {
            return Ok(false);
        };
        ensure!(status.is_success(), "creating {body} was answered with {status}: {answer}");
        let id = id(&answer[kind.name()])?;
        if let Some(thing) = self.things.last_mut() {
            thing.known = Known::Present { id };
        }
        Ok(true)
    }

    fn body(&mut self, kind: Kind, name: &str) -> Value {
        match kind {
            Kind::Server => {
                let networks = if self.random.random() { json!([{ "uuid": self.network }]) } else { json!("none") };
                json!({ "server": { "name": name, "imageRef": self.image, "flavorRef": "1", "networks": networks } })
            }
            Kind::Port => json!({ "port": { "name": name, "network_id": self.network } }),
            Kind::Network => json!({ "network": { "name": name } }),
        }
    }

    /// Deletes a thing that is there; whether that was answered.
    async fn delete(&mut self, at: usize) -> Result<bool> {
        let thing = &mut self.things[at];
        let Known::Present { id } = thing.known.clone() else { bail!("{thing:?} is not there") };
        thing.known = Known::PerhapsDeleted { id: id.clone() };
        let path = format!("{}/{id}", thing.kind.path());
        let Ok((status, answer)) = self.session.call(Method::DELETE, &path, None).await else { return Ok(false) };
        ensure!(status.is_success(), "deleting {} was answered with {status}: {answer}", thing.name);
        thing.known = Known::Deleted { id };
        Ok(true)
    }

    /// Deletes everything but the network that the worker always has.
    pub async fn delete_all(&mut self) -> Result<()> {
        for at in 0..self.things.len() {
            if matches!(self.things[at].known, Known::Present { .. }) {
                ensure!(self.delete(at).await?, "deleting {:?} was not answered", self.things[at]);
            }
        }
        Ok(())
    }

    /// Holds what is known against what the cloud shows. What was not answered is known afterwards.
    pub fn compare(&mut self, books: &mut Books) -> Result<()> {
        books.explain_network(&self.network);
        for thing in &mut self.things {
            let mut found = books.take(thing.kind, &thing.name);
            ensure!(found.len() <= 1, "{} is there {} times: {found:?}", thing.name, found.len());
            let found = found.pop();
            thing.known =
                after_restart(thing, found.as_ref()).with_context(|| format!("{thing:?} against {found:?}"))?;
        }
        // What is deleted stays known as long as it may still be seen.
        self.things.retain(|thing| match &thing.known {
            Known::Deleted { .. } => thing.kind == Kind::Server && books.was_listed(&thing.name),
            Known::Present { .. } | Known::PerhapsCreated | Known::PerhapsDeleted { .. } => true,
        });
        Ok(())
    }
}

/// What is known of a thing once the cloud has shown what it has.
fn after_restart(thing: &Thing, found: Option<&Listed>) -> Result<Known> {
    let deleting = found.is_some_and(|found| found.task == "deleting");
    match (&thing.known, found) {
        (Known::Present { id }, Some(found)) => {
            ensure!(found.id == *id, "it has another id");
            ensure!(!deleting, "nobody has deleted it");
            ensure!(found.status != "ERROR", "it has failed");
            Ok(thing.known.clone())
        }
        (Known::Present { .. }, None) => bail!("its creation was acknowledged and it is lost"),
        (Known::Deleted { .. }, Some(_)) => {
            ensure!(deleting, "its deletion was acknowledged and it is back");
            Ok(thing.known.clone())
        }
        (Known::PerhapsDeleted { id }, Some(_)) if deleting => Ok(Known::Deleted { id: id.clone() }),
        (Known::PerhapsDeleted { id }, Some(_)) => Ok(Known::Present { id: id.clone() }),
        (Known::PerhapsDeleted { id } | Known::Deleted { id }, None) => Ok(Known::Deleted { id: id.clone() }),
        (Known::PerhapsCreated, Some(found)) => Ok(Known::Present { id: found.id.clone() }),
        (Known::PerhapsCreated, None) => Ok(Known::Deleted { id: String::new() }),
    }
}
