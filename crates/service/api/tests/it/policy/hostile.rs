//! Every route under hostile input: each policy case says what a good request looks like, and here it is spoilt.
//!
//! Whatever comes in, the answer is no server error, comes within [`ANSWER_MAX`], tells in words what is wrong, and names
//! nothing of another project's. `ARCUS_FUZZ_SEED` decides what is spoilt, `ARCUS_FUZZ_ROUNDS` how often per case.

mod mutation;

use super::things::{Vars, World};
use super::{Case, Who, cases, name};
use crate::harness::Answer;
use arcus_api::auth::PeerNode;
use arcus_types::policy::Rule;
use axum::body::Body;
use futures_util::FutureExt;
use http::Request;
use mutation::{Random, Spoilt};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// How long an answer may take. Far above what any takes: what is caught is work that grows with the input.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How many cases share a cloud: what gets through may leave it in a state that refuses everything.
const CASES_PER_CLOUD: usize = 24;
const ROUNDS: u64 = 6;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// The cases of a service, spoilt.
async fn fuzz(service: &str) {
    let (seed, rounds) = (setting("ARCUS_FUZZ_SEED", 1), setting("ARCUS_FUZZ_ROUNDS", ROUNDS));
    let prefix = format!(" /{service}");
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.route.contains(&prefix)).collect();
    assert!(!cases.is_empty(), "no cases of {service}");
    let (mut wrong, mut calls) = (Vec::new(), 0);
    for (number, group) in cases.chunks(CASES_PER_CLOUD).enumerate() {
        let mut world = World::start().await;
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        for case in group {
            // What a case stands on can be made no more once a spoilt request took its room or its people.
            let made = AssertUnwindSafe(world.make(case.thing)).catch_unwind().await;
            let Ok(vars) = made else {
                world = World::start().await;
                continue;
            };
            // Whoever waits for a node that does not answer waits long.
            for _ in 0..if case.success == 503 { 1 } else { rounds } {
                calls += 1;
                wrong.extend(attempt(&world, case, &vars, &mut random).await);
            }
        }
    }
    println!("{service}: {calls} spoilt requests, seed {seed}");
    assert!(wrong.is_empty(), "{} answers to hostile input are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// One spoilt request, by who may and by a stranger; what is wrong with the answers.
async fn attempt(world: &World, case: &Case, vars: &Vars, random: &mut Random) -> Vec<String> {
    let spoilt = Spoilt::of(case, vars, world.word(), random);
    let routes = arcus_api::routes();
    let rule = case.rule.or(routes.iter().find(|route| name(route) == case.route).map(|route| route.action.rule));
    let allowed = case.allowed(rule.unwrap_or(Rule::Public));
    let mut wrong = Vec::new();
    for who in [Who::Stranger, allowed] {
        let started = Instant::now();
        let answer = send(world, case, &spoilt, who, vars).await;
        let problem = match problem(case, &spoilt, &answer, who, vars) {
            None if started.elapsed() > ANSWER_MAX => Some(format!("it took {:?}", started.elapsed())),
            found => found,
        };
        if let Some(problem) = problem {
            let text: String = String::from_utf8_lossy(&answer.bytes).chars().take(200).collect();
            let status = answer.status.as_u16();
            wrong.push(format!("{} as {who:?}: {problem}; got {status} {text}\n    {spoilt}", case.route));
        }
    }
    wrong
}

async fn send(world: &World, case: &Case, spoilt: &Spoilt, who: Who, vars: &Vars) -> Answer {
    let mut request = Request::builder().method(case.method()).uri(&spoilt.uri);
    for (name, value) in &spoilt.headers {
        request = request.header(*name, value);
    }
    let token = if who == Who::Himself { vars.get("token").map(str::to_owned) } else { world.token(who) };
    if let Some(token) = token {
        request = request.header("x-auth-token", token);
    }
    let mut request = request.body(Body::from(spoilt.body.clone())).unwrap();
    if who == Who::Node {
        request.extensions_mut().insert(PeerNode(world.nova.node));
    }
    world.nova.cloud.request(request).await
}

fn problem(case: &Case, spoilt: &Spoilt, answer: &Answer, who: Who, vars: &Vars) -> Option<String> {
    let (status, text) = (answer.status.as_u16(), String::from_utf8_lossy(&answer.bytes));
    // A node that does not answer in time is told of in words, and there is none behind these clouds.
    if status >= 500 && status != 503 {
        return Some("a server error".into());
    }
    if status >= 400 && !case.route.starts_with("HEAD") && !text.chars().any(char::is_alphabetic) {
        return Some("a refusal without a word".into());
    }
    // Who knows the password is no stranger.
    let knows = ["password", "key"].iter().any(|word| vars.get(word).is_some_and(|secret| spoilt.names(secret)));
    if who == Who::Stranger && !knows {
        let asked = |secret: &str| spoilt.names(secret);
        let told = vars.secrets().find(|secret| secret.len() > 8 && text.contains(*secret) && !asked(secret));
        return told.map(|secret| format!("the answer tells of {secret}"));
    }
    None
}

macro_rules! services { ($($test:ident $service:literal;)*) => { $(
    #[tokio::test]
    async fn $test() {
        fuzz($service).await;
    }
)* } }

services! {
    identity_survives_hostile_input "identity";
    images_survive_hostile_input "image";
    compute_survives_hostile_input "compute";
    networks_survive_hostile_input "network";
    volumes_survive_hostile_input "volume";
    the_native_api_survives_hostile_input "arcus";
    nodes_routes_survive_hostile_input "agent";
}
