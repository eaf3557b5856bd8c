//! Who may do what. Every route is called by everybody, and the answers are held against the policy table.
//!
//! A route has at least one [`Case`]: one line that says how the path and the body are filled and what success looks
//! like. What each caller must be told follows from the rule of the route's action ([`Case::wanted`]). Every refusal
//! must also leave no trace in the audit log, and must not tell whether there is a resource with this id.

mod compute;
mod hostile;
mod identity;
mod identity_things;
mod image;
mod naming;
mod network;
mod placement;
mod root;
mod samples;
mod things;
mod volume;
mod volume_groups;
mod volumes;

use crate::harness::Answer;
use arcus_api::Route;
use arcus_api::auth::PeerNode;
use arcus_store::testing::audit_count;
use arcus_types::policy::Rule;
use axum::body::{Body, Bytes};
use futures_util::stream;
use http::{Method, Request};
use samples::Sample;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use things::{Thing, Vars, World};

/// Somebody who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Nobody: no token.
    Nobody,
    /// Somebody with a token that is none.
    Garbage,
    /// A node with a certificate, without a token.
    Node,
    /// A member of another project of the same domain.
    Stranger,
    /// The manager of another domain, with a token for that domain.
    Rival,
    /// The user `demo` with a token for no project.
    Unscoped,
    /// A reader of the project `demo`.
    Reader,
    /// A member of the project `demo`: the user `demo`.
    Member,
    /// A reader of the domain `default`, with a token for it.
    Warden,
    /// A manager of the domain `default`, with a token for it.
    Manager,
    /// The user whom the thing is or belongs to, where that is not `demo`.
    Himself,
    /// An administrator.
    Admin,
}

impl Who {
    const ALL: [Who; 12] = [
        Who::Nobody,
        Who::Garbage,
        Who::Node,
        Who::Stranger,
        Who::Rival,
        Who::Unscoped,
        Who::Reader,
        Who::Member,
        Who::Warden,
        Who::Manager,
        Who::Himself,
        Who::Admin,
    ];
}

/// What a caller must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// 401, before the body is read.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 403 or 404; the same as for an id that names nothing.
    Refused,
    /// A refusal, or the caller's own things: never the project's.
    Apart,
    /// Success among the caller's own things: never the project's.
    Own,
    /// The success of the case.
    Granted,
}

/// One way to call a route.
pub struct Case {
    route: &'static str,
    thing: Thing,
    success: u16,
    query: &'static str,
    body: &'static str,
    header: Option<(&'static str, &'static str)>,
    version: &'static str,
    rule: Option<Rule>,
    by: Option<Who>,
    also: &'static [Who],
    with: Vec<(&'static str, &'static str)>,
    because: &'static str,
}

/// A case: the route as `METHOD /path`, what must be there first, and the status of success.
pub fn case(route: &'static str, thing: Thing, success: u16) -> Case {
    let (query, body, because) = ("", "", "");
    let (header, rule, by, also) = (None, None, None, &[][..]);
    let version = match service(route) {
        "volume" => "3.0",
        "placement" => "1.39",
        _ => "2.1",
    };
    Case { route, thing, success, query, body, header, version, rule, by, also, with: Vec::new(), because }
}

/// The service of a route as the version header names it.
fn service(route: &str) -> &'static str {
    ["volume", "placement"].into_iter().find(|name| route.contains(&format!(" /{name}"))).unwrap_or("compute")
}

impl Case {
    /// With this JSON body; `{words}` are filled in as they are in the path.
    fn body(self, body: &'static str) -> Self {
        Self { body, ..self }
    }

    /// With this in the place of a word of the path.
    fn with(mut self, word: &'static str, text: &'static str) -> Self {
        self.with.push((word, text));
        self
    }

    /// With this query string.
    fn query(self, query: &'static str) -> Self {
        Self { query, ..self }
    }

    /// With this header.
    fn header(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// At this microversion of the compute API.
    fn at(self, version: &'static str) -> Self {
        Self { version, ..self }
    }

    /// What is asked for here has a stricter rule than the route.
    fn rule(self, rule: Rule) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// The one who may, where it is not who the rule stands for.
    fn by(self, who: Who) -> Self {
        Self { by: Some(who), ..self }
    }

    /// These may too, beyond the rule.
    fn also(self, who: &'static [Who]) -> Self {
        Self { also: who, ..self }
    }

    /// Why the success is not one of HTTP's.
    fn because(self, reason: &'static str) -> Self {
        Self { because: reason, ..self }
    }

    fn method(&self) -> Method {
        self.route.split_once(' ').unwrap().0.parse().unwrap()
    }

    /// The path without the query string.
    fn path(&self) -> String {
        let mut path = self.route.split_once(' ').unwrap().1.to_owned();
        for (word, text) in &self.with {
            path = path.replace(&format!("{{{word}}}"), text);
        }
        path
    }

    /// Whether the call names something of the project, domain or user `demo`, other than to search for it.
    fn touches(&self, vars: &Vars) -> bool {
        vars.touched(&[&self.path(), self.body, self.header.map_or("", |(_, value)| value)])
    }

    fn reads(&self) -> bool {
        matches!(self.method(), Method::GET | Method::HEAD)
    }

    /// Who makes the call that must succeed: the last one, for it may use the thing up.
    fn allowed(&self, rule: Rule) -> Who {
        self.by.unwrap_or(match rule {
            Rule::Public | Rule::Authenticated | Rule::ProjectReader | Rule::ProjectMember | Rule::SameUser => {
                Who::Member
            }
            Rule::Manager => Who::Manager,
            Rule::DomainReader => Who::Warden,
            Rule::Admin => Who::Admin,
            Rule::Node => Who::Node,
        })
    }

    fn uri(&self) -> String {
        if self.query.is_empty() { self.path() } else { format!("{}?{}", self.path(), self.query) }
    }

    /// What the rule has in store for a caller; `None` where nothing follows from the rule.
    fn wanted(&self, rule: Rule, who: Who, vars: &Vars) -> Option<Wanted> {
        if who == self.allowed(rule) || self.also.contains(&who) {
            return Some(Wanted::Granted);
        }
        let touches = self.touches(vars);
        let apart = if touches { Wanted::Refused } else { Wanted::Apart };
        // A list of what matches something of the project's is empty, or refused.
        let own = if !touches && !vars.touched(&[self.query]) { Wanted::Own } else { apart };
        let wanted = match (rule, who) {
            (Rule::Public, Who::Nobody) => Wanted::Granted,
            (Rule::Public, _) | (_, Who::Himself) => return None,
            (_, Who::Nobody | Who::Garbage | Who::Node) => Wanted::Unauthorized,
            (Rule::Node, _) => Wanted::Forbidden,
            (Rule::Authenticated, _) => Wanted::Granted,
            (Rule::ProjectReader, Who::Reader | Who::Admin) => Wanted::Granted,
            (Rule::ProjectReader | Rule::ProjectMember, Who::Member | Who::Admin) => return None,
            (Rule::ProjectReader | Rule::ProjectMember, Who::Stranger) => own,
            (Rule::ProjectReader, Who::Rival | Who::Unscoped | Who::Warden | Who::Manager) => apart,
            (Rule::ProjectMember, Who::Reader) => Wanted::Forbidden,
            (Rule::ProjectMember, Who::Rival | Who::Unscoped | Who::Warden | Who::Manager) => Wanted::Refused,
            (Rule::SameUser, Who::Admin | Who::Unscoped) => return None,
            (Rule::SameUser, _) => apart,
            (Rule::Manager, Who::Reader | Who::Member | Who::Warden) => Wanted::Forbidden,
            (Rule::Manager, Who::Rival) => apart,
            (Rule::Manager, Who::Manager) if self.by.is_some() => Wanted::Refused,
            (Rule::Manager, Who::Admin | Who::Manager) => return None,
            (Rule::Manager, Who::Stranger | Who::Unscoped) => Wanted::Refused,
            (Rule::DomainReader, Who::Warden | Who::Manager) if self.by == Some(Who::Admin) => Wanted::Refused,
            (Rule::DomainReader, Who::Warden | Who::Manager | Who::Admin) => Wanted::Granted,
            (Rule::DomainReader, Who::Rival) => apart,
            (Rule::DomainReader, Who::Stranger | Who::Unscoped | Who::Reader | Who::Member) => Wanted::Refused,
            (Rule::Admin, Who::Reader | Who::Member) => Wanted::Forbidden,
            (Rule::Admin, _) => Wanted::Refused,
        };
        Some(wanted)
    }
}

/// Every case of every service.
fn cases() -> Vec<Case> {
    let mut cases = root::cases();
    cases.extend(identity::cases());
    cases.extend(image::cases());
    cases.extend(compute::cases());
    cases.extend(network::cases());
    cases.extend(volume::cases());
    cases.extend(placement::cases());
    cases.extend(volumes::cases());
    cases.extend(volume_groups::cases());
    cases
}

fn name(route: &Route) -> String {
    format!("{} {}", route.method, route.path)
}

#[test]
fn every_route_has_a_case_and_a_rule_that_fits_its_method() {
    let (routes, cases) = (arcus_api::routes(), cases());
    let covered: BTreeSet<&str> = cases.iter().map(|case| case.route).collect();
    let served: BTreeSet<String> = routes.iter().map(name).collect();
    let missing: Vec<&String> = served.iter().filter(|route| !covered.contains(route.as_str())).collect();
    assert!(missing.is_empty(), "routes without a policy case: {missing:#?}");
    let gone: Vec<&&str> = covered.iter().filter(|route| !served.contains(**route)).collect();
    assert!(gone.is_empty(), "cases of routes that are not served: {gone:#?}");
    for case in &cases {
        assert!(case.success < 300 || !case.because.is_empty(), "{}: {} is no success", case.route, case.success);
    }
    for route in &routes {
        let reads = matches!(route.method, Method::GET | Method::HEAD);
        let fits = match route.action.rule {
            Rule::ProjectMember | Rule::Manager => !reads,
            Rule::ProjectReader | Rule::DomainReader | Rule::Authenticated => reads,
            Rule::Public | Rule::SameUser | Rule::Admin | Rule::Node => true,
        };
        assert!(fits, "{}: rule {:?}", name(route), route.action.rule);
    }
}

/// Runs cases on one cloud and tells of all that went wrong.
async fn walk(cases: Vec<Case>) {
    let mut world = World::start().await;
    let routes = arcus_api::routes();
    let (mut wrong, mut samples) = (Vec::new(), Vec::new());
    for case in &cases {
        let route = routes.iter().find(|route| name(route) == case.route);
        let rule = case.rule.or(route.map(|route| route.action.rule));
        match rule {
            Some(rule) => samples.push(run(&mut world, case, rule, &mut wrong).await),
            None => wrong.push(format!("{}: no such route", case.route)),
        }
    }
    assert!(wrong.is_empty(), "{} answers are not what the rules say:\n{}", wrong.len(), wrong.join("\n"));
    let wrong = samples::check(samples.into_iter().flatten().collect());
    assert!(wrong.is_empty(), "{} samples are out of date:\n{}", wrong.len(), wrong.join("\n"));
}

/// Runs one case as everybody; the sample of the call that succeeded.
async fn run(world: &mut World, case: &Case, rule: Rule, wrong: &mut Vec<String>) -> Option<Sample> {
    let vars = if case.reads() { world.shown(case.thing).await } else { world.make(case.thing).await };
    let allowed = case.allowed(rule);
    let mut sample = None;
    for who in Who::ALL.into_iter().filter(|who| *who != allowed).chain([allowed]) {
        let Some(wanted) = case.wanted(rule, who, &vars) else { continue };
        // What changes something is done only once, and by others only to what is their own.
        if wanted == Wanted::Granted && who != allowed && !case.reads() && case.touches(&vars) {
            continue;
        }
        let before = audit_count(&world.nova.cloud.store).await;
        let (answer, body_read) = call(world, case, who, &vars).await;
        let unchanged = audit_count(&world.nova.cloud.store).await == before;
        let mut told = Told { answer: &answer, unchanged, body_read, absent: None };
        if wanted == Wanted::Refused && who == Who::Stranger {
            told.absent = Some(call(world, case, who, &vars.absent()).await.0.status.as_u16());
        }
        if let Some(problem) = problem(case, who == allowed, wanted, &vars, &told) {
            let text: String = String::from_utf8_lossy(&answer.bytes).chars().take(160).collect();
            let (status, path) = (answer.status.as_u16(), vars.fill(&case.uri()));
            let (method, body) = (case.method(), case.body);
            wrong.push(format!("{method} {path} {body} as {who:?} ({rule:?}): {problem}; got {status} {text}"));
        } else if who == allowed {
            let vars = vars.with_fresh("name".to_owned());
            sample = Some(Sample::new(case, &vars.fill(&case.uri()), &vars.fill(case.body), &answer));
        }
    }
    sample
}

/// What came of one call.
struct Told<'a> {
    answer: &'a Answer,
    unchanged: bool,
    body_read: bool,
    absent: Option<u16>,
}

/// What is wrong with an answer.
fn problem(case: &Case, last: bool, wanted: Wanted, vars: &Vars, told: &Told<'_>) -> Option<String> {
    let status = told.answer.status.as_u16();
    let text = String::from_utf8_lossy(&told.answer.bytes);
    // What the caller asked for may be repeated to it.
    let asked = vars.fill(case.query);
    let leaked = || {
        let found = vars.secrets().find(|secret| text.contains(*secret) && !asked.contains(*secret));
        found.map(|secret| format!("the answer tells of {secret}"))
    };
    let refused = matches!(status, 403 | 404);
    // What a body names and the caller does not see makes it a bad request, as if it were not there.
    let in_body = told.absent == Some(status) && !vars.touched(&[&case.path()]);
    if let Some(absent) = told.absent.filter(|absent| *absent != status) {
        return Some(format!("an id that names nothing is answered with {absent}"));
    }
    match wanted {
        Wanted::Unauthorized if status != 401 => Some("wanted 401".into()),
        Wanted::Unauthorized if told.body_read => Some("the body was read".into()),
        Wanted::Forbidden if status != 403 => Some("wanted 403".into()),
        Wanted::Refused if !(refused || in_body && status == 400) => Some("wanted 403 or 404".into()),
        Wanted::Unauthorized | Wanted::Forbidden | Wanted::Refused if !told.unchanged => {
            Some("something was changed".into())
        }
        Wanted::Unauthorized | Wanted::Forbidden | Wanted::Refused => None,
        Wanted::Apart if !refused && status != case.success => Some("wanted a refusal, or one's own".into()),
        Wanted::Own if status != case.success => Some(format!("wanted {} for one's own", case.success)),
        Wanted::Apart | Wanted::Own => leaked(),
        Wanted::Granted if status != case.success => Some(format!("wanted {}", case.success)),
        Wanted::Granted if last && case.reads() && !case.path().contains("{id}") && !case.touches(vars) => {
            let shown = vars.get("id").is_none_or(|id| text.contains(id));
            (!shown).then(|| "the list does not hold what was made".into())
        }
        Wanted::Granted => None,
    }
}

async fn call(world: &World, case: &Case, who: Who, vars: &Vars) -> (Answer, bool) {
    let vars = vars.with_fresh(world.word());
    let mut request = Request::builder().method(case.method()).uri(vars.fill(&case.uri()));
    let version = format!("{} {}", service(case.route), case.version);
    request = request.header("openstack-api-version", version);
    match case.header {
        Some((name, value)) => request = request.header(name, vars.fill(value)),
        None => request = request.header("content-type", "application/json"),
    }
    if case.because.contains("WebSocket") {
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
        for (name, value) in upgrade.into_iter().chain([("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]) {
            request = request.header(name, value);
        }
    }
    let token = match who {
        Who::Himself => vars.get("token").map(str::to_owned),
        _ => world.token(who),
    };
    if let Some(token) = token {
        request = request.header("x-auth-token", token);
    }
    let read = Arc::new(AtomicBool::new(false));
    let (bytes, seen) = (Bytes::from(vars.fill(case.body)), Arc::clone(&read));
    let body = if bytes.is_empty() {
        Body::empty()
    } else {
        Body::from_stream(stream::once(async move {
            seen.store(true, Ordering::Relaxed);
            Ok::<_, std::io::Error>(bytes)
        }))
    };
    let mut request = request.body(body).unwrap();
    if who == Who::Node {
        request.extensions_mut().insert(PeerNode(world.nova.node));
    }
    let answer = world.nova.cloud.request(request).await;
    (answer, read.load(Ordering::Relaxed))
}
