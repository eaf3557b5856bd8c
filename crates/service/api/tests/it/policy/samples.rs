//! A recorded sample of every route, `docs/api/<service>.md`: the request of its first policy case by the one who may, and
//! the answer. What changes from run to run (ids, times, secrets) is written the same each time.
//!
//! The test of a service compares the shape of what it sees, the names and types of all fields, with what is recorded;
//! `ARCUS_WRITE_DOCS=1` records anew.

use super::{Case, name};
use crate::harness::{Answer, URL};
use arcus_types::policy::Rule;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

/// How many items of a list are shown.
const ITEMS_MAX: usize = 2;
/// How many characters of a text are shown.
const TEXT_CHARS_MAX: usize = 120;

/// A call that succeeded.
pub struct Sample {
    route: &'static str,
    uri: String,
    version: String,
    request: Option<Value>,
    status: u16,
    answer: Option<Value>,
}

impl Sample {
    /// What is worth showing of a call.
    pub fn new(case: &Case, uri: &str, body: &str, answer: &Answer) -> Self {
        let request = serde_json::from_str(body).ok();
        let shown = (!answer.json.is_null()).then(|| answer.json.clone());
        let (route, version) = (case.route, case.version.to_owned());
        Self { route, uri: uri.to_owned(), version, request, status: answer.status.as_u16(), answer: shown }
    }

    fn service(&self) -> &'static str {
        self.route.split('/').nth(1).unwrap_or_default()
    }
}

/// The file that documents a service.
fn file(service: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../docs/api").join(format!("{service}.md"))
}

/// Compares the samples with what is recorded, or records them; what differs.
pub fn check(samples: Vec<Sample>) -> Vec<String> {
    let mut services: BTreeMap<&str, BTreeMap<(String, &str), Sample>> = BTreeMap::new();
    for sample in samples {
        let (method, path) = sample.route.split_once(' ').unwrap_or_default();
        let service = services.entry(sample.service()).or_default();
        service.entry((path.to_owned(), method)).or_insert(sample);
    }
    let mut wrong = Vec::new();
    for (service, samples) in services.iter().filter(|(service, _)| !service.is_empty()) {
        let sections: Vec<(String, String)> =
            samples.values().map(|sample| (sample.route.to_owned(), section(sample))).collect();
        if std::env::var_os("ARCUS_WRITE_DOCS").is_some() {
            write(service, &sections);
        }
        wrong.extend(differences(service, &sections));
    }
    wrong
}

/// Records these sections among those of the service's other routes.
fn write(service: &str, sections: &[(String, String)]) {
    let old = std::fs::read_to_string(file(service)).unwrap_or_default();
    let served = served();
    let mut all: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let kept = recorded(&old).into_iter().filter(|(route, _)| served.contains(*route));
    for (route, section) in kept.chain(sections.iter().map(|(route, section)| (route.as_str(), section.as_str()))) {
        let (method, path) = route.split_once(' ').unwrap_or_default();
        all.insert((path, method), section);
    }
    let mut text = format!(
        "# Samples: `/{service}`\n\nA recorded request and answer for every route, written by the tests that check who may call \
         it. Ids, times and\nsecrets stand for others; lists are cut to {ITEMS_MAX} items.\n"
    );
    for ((path, method), section) in all {
        write!(text, "\n## {method} {path}\n\n{}\n", section.trim_end()).unwrap();
    }
    std::fs::create_dir_all(file(service).parent().unwrap()).unwrap();
    std::fs::write(file(service), text).unwrap();
}

fn served() -> BTreeSet<String> {
    arcus_api::routes().iter().map(name).collect()
}

/// The sections of a file by their routes.
fn recorded(text: &str) -> BTreeMap<&str, &str> {
    text.split("\n## ").skip(1).filter_map(|section| section.split_once("\n\n")).collect()
}

/// Routes whose sample is missing, no longer served, or of another shape.
fn differences(service: &str, sections: &[(String, String)]) -> Vec<String> {
    let text = std::fs::read_to_string(file(service)).unwrap_or_default();
    let (recorded, served) = (recorded(&text), served());
    let gone = recorded.keys().filter(|route| !served.contains(**route)).map(|route| format!("{route}: is not served"));
    let other = sections.iter().filter_map(|(route, section)| match recorded.get(route.as_str()) {
        None => Some(format!("{route}: no sample in docs/api/{service}.md")),
        Some(recorded) if shapes(recorded) == shapes(section) => None,
        Some(_) => Some(format!("{route}: the sample in docs/api/{service}.md has another shape")),
    });
    let hint = "    (record anew: ARCUS_WRITE_DOCS=1 cargo nextest run -j1 -p arcus-api policy)".to_owned();
    let wrong: Vec<String> = gone.chain(other).collect();
    if wrong.is_empty() { wrong } else { wrong.into_iter().chain([hint]).collect() }
}

fn section(sample: &Sample) -> String {
    let routes = arcus_api::routes();
    let rule = routes.iter().find(|route| name(route) == sample.route).map(|route| route.action.rule);
    let mut hide = Hide::default();
    let mut text = format!("{}\n", rule.map_or("", who_may));
    let (method, _) = sample.route.split_once(' ').unwrap_or_default();
    let version = match sample.service() {
        service @ ("compute" | "volume" | "placement") => {
            format!("OpenStack-API-Version: {service} {}\n", sample.version)
        }
        _ => String::new(),
    };
    write!(text, "\n```http\n{method} {}\n{version}```\n", hide.text(&sample.uri)).unwrap();
    if let Some(request) = &sample.request {
        write!(text, "\n```json\n{}\n```\n", pretty(&hide.value(request))).unwrap();
    }
    write!(text, "\nAnswers `{}`", sample.status).unwrap();
    match &sample.answer {
        Some(answer) => write!(text, ":\n\n```json\n{}\n```\n", pretty(&hide.value(answer))).unwrap(),
        None => text.push_str(" without JSON.\n"),
    }
    text
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

fn who_may(rule: Rule) -> &'static str {
    match rule {
        Rule::Public => "For anybody, even without a token.",
        Rule::Authenticated => "For anybody with a token.",
        Rule::ProjectReader => "For readers of the project, and administrators.",
        Rule::ProjectMember => "For members of the project, and administrators.",
        Rule::Manager => "For managers of the project or domain, and administrators.",
        Rule::SameUser => "For the user concerned, and administrators.",
        Rule::DomainReader => "For readers of the domain, the user concerned, and administrators.",
        Rule::Admin => "For administrators.",
        Rule::Node => "For nodes.",
    }
}

/// The shapes of the JSON blocks of a section.
fn shapes(section: &str) -> Vec<String> {
    let blocks = section.split("```json\n").skip(1).filter_map(|block| block.split_once("\n```"));
    blocks.map(|(json, _)| shape(&serde_json::from_str(json).unwrap_or(Value::Null))).collect()
}

/// The names and types of all fields. What is null now may have a value another time, and an empty list items.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut text = "{".to_owned();
            for (name, field) in fields {
                match field {
                    Value::Object(inner) if !inner.is_empty() => write!(text, "{}:{},", id_free(name), shape(field)),
                    _ => write!(text, "{},", id_free(name)),
                }
                .unwrap();
            }
            text + "}"
        }
        Value::Array(items) => items.first().map_or("[]".to_owned(), |first| format!("[{}]", shape(first))),
        _ => "_".to_owned(),
    }
}

/// A field's name, where ids are no names.
fn id_free(name: &str) -> &str {
    if is_uuid(name) { "<id>" } else { name }
}

/// Writes the same for what changes from run to run.
#[derive(Default)]
struct Hide {
    ids: BTreeMap<String, usize>,
}

impl Hide {
    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let hidden = fields.iter().map(|(name, field)| (self.text(name), self.field(name, field)));
                Value::Object(hidden.collect())
            }
            Value::Array(items) => items.iter().take(ITEMS_MAX).map(|item| self.value(item)).collect(),
            Value::String(text) => Value::String(self.text(text)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn field(&mut self, name: &str, field: &Value) -> Value {
        let secret =
            ["adminPass", "secret", "password", "private_key", "public_key", "fingerprint", "token", "csr_pem"];
        match field {
            Value::Array(_) if name == "audit_ids" => serde_json::json!(["…"]),
            Value::String(text) if secret.contains(&name) && !text.is_empty() => Value::String("…".to_owned()),
            _ => self.value(field),
        }
    }

    /// Ids become numbered ones, times one time; what is too long is cut.
    fn text(&mut self, text: &str) -> String {
        let text = text.replace(URL, "https://cloud.example:8774");
        let mut out = String::new();
        let mut word = String::new();
        for letter in text.chars().chain([' ']) {
            if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_') {
                word.push(letter);
                continue;
            }
            // A time has colons inside: `2026-11-23T10` is where one begins.
            let ended = std::mem::take(&mut word);
            out.push_str(&self.word(&ended));
            out.push(letter);
        }
        out.pop();
        let out = times(&out);
        if out.chars().count() > TEXT_CHARS_MAX {
            return out.chars().take(TEXT_CHARS_MAX).chain(['…']).collect();
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        let (prefix, id) = word.strip_prefix("req-").map_or(("", word), |id| ("req-", id));
        let bare = id.replace('-', "");
        if !is_uuid(id) {
            return if word.starts_with("gAAAA") { "gAAAA…".to_owned() } else { word.to_owned() };
        }
        let next = self.ids.len() + 1;
        let number = *self.ids.entry(bare).or_insert(next);
        let dashed = format!("01940000-0000-7000-8000-{number:012}");
        let shown = if id.contains('-') { dashed } else { dashed.replace('-', "") };
        format!("{prefix}{shown}")
    }
}

fn is_uuid(text: &str) -> bool {
    let dashed = text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4;
    (dashed || text.len() == 32) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Every time of day becomes the same one; so does every Ethernet address.
fn times(text: &str) -> String {
    let bytes = text.as_bytes();
    let fits = |at: usize, pattern: &str| {
        bytes.len() >= at + pattern.len()
            && pattern.bytes().zip(&bytes[at..]).all(|(wanted, found)| match wanted {
                b'0' => found.is_ascii_digit(),
                b'x' => found.is_ascii_hexdigit(),
                other => other == *found,
            })
    };
    let (time, fraction, mac) = ("0000-00-00T00:00:00", ".000000", "fa:16:3e:xx:xx:xx");
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        if fits(at, time) {
            out.push_str("2026-01-02T03:04:05");
            at += time.len();
            if fits(at, fraction) {
                out.push_str(".678901");
                at += fraction.len();
            }
        } else if fits(at, mac) {
            out.push_str("fa:16:3e:00:00:01");
            at += mac.len();
        } else {
            let letter = text[at..].chars().next().unwrap_or_default();
            out.push(letter);
            at += letter.len_utf8();
        }
    }
    out
}

#[test]
fn what_changes_from_run_to_run_is_written_the_same() {
    let mut hide = Hide::default();
    let text = "2026-11-23T13:15:11.100021Z 0194b3a0-0000-7000-8000-0123456789ab fa:16:3e:12:ab:34 é";
    let wanted = "2026-01-02T03:04:05.678901Z 01940000-0000-7000-8000-000000000001 fa:16:3e:00:00:01 é";
    assert_eq!(hide.text(text), wanted);
    assert_eq!(hide.text("0194b3a00000700080000123456789ab"), "01940000000070008000000000000001");
}
