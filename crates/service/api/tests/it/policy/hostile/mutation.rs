//! How a good request is spoilt.

use super::super::{Case, things::Vars};
use http::HeaderValue;
use serde_json::{Map, Value, json};
use std::fmt;

/// Random numbers from a seed (SplitMix64): a run can be repeated.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A request that is not what the route expects.
pub struct Spoilt {
    pub uri: String,
    pub headers: Vec<(&'static str, HeaderValue)>,
    pub body: Vec<u8>,
    what: String,
}

impl fmt::Display for Spoilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(300).collect();
        let uri: String = self.uri.chars().take(300).collect();
        write!(f, "{}: {uri} {body}", self.what)
    }
}

impl Spoilt {
    /// The case's request with one thing spoilt.
    pub fn of(case: &Case, vars: &Vars, word: String, random: &mut Random) -> Self {
        let vars = vars.with_fresh(word);
        let body = vars.fill(case.body).into_bytes();
        let mut spoilt = Self { uri: vars.fill(&case.uri()), headers: headers(case, &vars), body, what: String::new() };
        let has_body = !spoilt.body.is_empty();
        match random.below(10) {
            0 => spoilt.path(case, &vars, random),
            1 | 2 => spoilt.query(random),
            3 => spoilt.header(random),
            4 if has_body => spoilt.whole(random),
            _ if has_body => spoilt.part(random),
            4 | 5 => spoilt.unexpected_body(random),
            6 => spoilt.path(case, &vars, random),
            _ => spoilt.query(random),
        }
        spoilt
    }

    /// Whether the request itself names this.
    pub fn names(&self, text: &str) -> bool {
        self.uri.contains(text) || String::from_utf8_lossy(&self.body).contains(text)
    }

    /// Something else in the place of one of the path's words.
    fn path(&mut self, case: &Case, vars: &Vars, random: &mut Random) {
        let path = case.route.split_once(' ').map_or("", |(_, path)| path);
        let words: Vec<&str> = path.split('/').filter(|part| part.starts_with('{')).collect();
        if words.is_empty() {
            return self.query(random);
        }
        let (word, hostile) = (*random.pick(&words), *random.pick(PATH_WORDS));
        let mut uri = path.replacen(word, hostile, 1);
        for (word, text) in &case.with {
            uri = uri.replace(&format!("{{{word}}}"), text);
        }
        self.uri = vars.fill(&uri);
        self.what = format!("{word} is {hostile}");
    }

    /// A query that nobody would send.
    fn query(&mut self, random: &mut Random) {
        let long = format!("name={}", "n".repeat(5000));
        let query = if random.below(12) == 0 { long } else { (*random.pick(QUERIES)).to_owned() };
        self.uri.push(if self.uri.contains('?') { '&' } else { '?' });
        self.uri.push_str(&query);
        self.what = "a query".into();
    }

    /// A header that says something else.
    fn header(&mut self, random: &mut Random) {
        let (name, value) = *random.pick(HEADERS);
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, HeaderValue::from_bytes(value).unwrap()));
        self.what = format!("the header {name}: {}", String::from_utf8_lossy(value));
    }

    /// Another body altogether.
    fn whole(&mut self, random: &mut Random) {
        let half = self.body[..self.body.len() / 2].to_vec();
        let bodies = [
            Vec::new(),
            b"null".to_vec(),
            b"[]".to_vec(),
            b"{}".to_vec(),
            b"\"text\"".to_vec(),
            b"1e999".to_vec(),
            b"\xff\xfe{}".to_vec(),
            b"\xef\xbb\xbf{}".to_vec(),
            half,
            [self.body.clone(), b" trailing".to_vec()].concat(),
            b"[".repeat(100_000),
            b"{\"a\":".repeat(50_000),
            vec![b' '; 2 << 20],
        ];
        self.body = random.pick(&bodies).clone();
        self.what = "another body".into();
    }

    /// A body where none is expected.
    fn unexpected_body(&mut self, random: &mut Random) {
        let bodies: [&[u8]; 4] = [b"{}", b"null", b"not JSON", b"{\"a\":{\"b\":[1,2,3]}}"];
        self.body = random.pick(&bodies).to_vec();
        self.what = "a body that nobody asked for".into();
    }

    /// One value of the body spoilt, left out, or beside one too many.
    fn part(&mut self, random: &mut Random) {
        let Ok(mut body) = serde_json::from_slice::<Value>(&self.body) else { return self.whole(random) };
        let mut places = Vec::new();
        collect(&body, String::new(), &mut places);
        let place = random.pick(&places).clone();
        match random.below(6) {
            0 => {
                remove(&mut body, &place);
                self.what = format!("without {place}");
            }
            1 => {
                if let Some(Value::Object(fields)) = body.pointer_mut(parent(&place)) {
                    fields.insert("unheard_of".into(), hostile(random));
                }
                self.what = format!("one field too many beside {place}");
            }
            _ => {
                let value = hostile(random);
                let shown: String = value.to_string().chars().take(60).collect();
                if let Some(target) = body.pointer_mut(&place) {
                    *target = value;
                }
                self.what = format!("{place} is {shown}");
            }
        }
        self.body = serde_json::to_vec(&body).unwrap();
    }
}

fn headers(case: &Case, vars: &Vars) -> Vec<(&'static str, HeaderValue)> {
    let service = case.route.split('/').nth(1).unwrap_or_default();
    let version = HeaderValue::from_str(&format!("{service} {}", case.version)).unwrap();
    let (name, value) = match case.header {
        Some((name, value)) => (name, vars.fill(value)),
        None => ("content-type", "application/json".to_owned()),
    };
    vec![("openstack-api-version", version), (name, HeaderValue::from_str(&value).unwrap())]
}

/// Every place in a JSON value, as a JSON pointer; the root is the empty one.
fn collect(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(inner, format!("{place}/{name}"), places);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                collect(inner, format!("{place}/{index}"), places);
            }
        }
        _ => {}
    }
    places.push(place);
}

fn parent(place: &str) -> &str {
    place.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn remove(body: &mut Value, place: &str) {
    let Some((parent, last)) = place.rsplit_once('/') else { return };
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.remove(&last.replace("~1", "/").replace("~0", "~"))),
        Some(Value::Array(items)) => items.clear(),
        _ => {}
    }
}

/// A value that fits nowhere, or fits where it should not.
fn hostile(random: &mut Random) -> Value {
    let many: Map<String, Value> = (0..300).map(|number| (format!("k{number}"), json!("v"))).collect();
    let deep = (0..100).fold(Value::Null, |inner, _| json!([inner]));
    let values = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(i64::from(i32::MAX) + 1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("\u{0}"),
        json!("a\u{0}b"),
        json!("line\r\nbreak: yes"),
        json!("\u{202e}\u{1f4a5}\u{fffd}"),
        json!("n".repeat(256)),
        json!("n".repeat(70_000)),
        json!("'; DROP TABLE servers; --"),
        json!("%s%n{}${x}"),
        json!("../../../../etc/passwd"),
        json!("00000000-0000-0000-0000-000000000000"),
        json!("0194b3a0-0000-7000-8000-000000000000"),
        json!("10.0.0.0/33"),
        json!("0.0.0.0/0"),
        json!("::/0"),
        json!("255.255.255.255"),
        json!("9999-99-99T99:99:99Z"),
        json!("99999999999999999999999999"),
        json!([]),
        json!([null]),
        json!(["x", 1, {}]),
        json!([[[]]]),
        json!({}),
        json!({ "": "" }),
        json!({ "id": { "id": null } }),
        Value::Object(many),
        deep,
    ];
    random.pick(&values).clone()
}

const PATH_WORDS: &[&str] = &[
    "x",
    "0",
    "-1",
    "%00",
    "%2e%2e%2fetc",
    "%ff%fe",
    "%F0%9F%92%A5",
    "00000000-0000-0000-0000-000000000000",
    "00000000000000000000000000000000",
    "0194b3a0-0000-7000-8000-000000000000",
    "detail",
    "null",
    "'%20or%201=1--",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
     aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
     aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

const QUERIES: &[&str] = &[
    "limit=-1",
    "limit=0",
    "limit=1",
    "limit=abc",
    "limit=99999999999999999999",
    "limit=1&limit=2",
    "offset=-1",
    "offset=99999999999",
    "offset=18446744073709551615",
    "marker=x",
    "marker=",
    "marker=00000000-0000-0000-0000-000000000000",
    "marker=%00",
    "sort=%3A%3A%3A",
    "sort=id:sideways",
    "sort_key=id&sort_dir=sideways",
    "sort_key=password",
    "sort_key=1;drop%20table&sort_dir=asc",
    "sort_key=name&sort_key=name&sort_dir=asc",
    "fields=password",
    "fields=",
    "name=%00",
    "name=%FF",
    "name=%",
    "name=in:a,b,%22",
    "id=x",
    "id=%27%20OR%201=1",
    "changes-since=yesterday",
    "changes-since=9999-12-31T23:59:59Z",
    "changes-before=0000-00-00",
    "created_at=gt:never",
    "updated_at=x:y:z",
    "all_tenants=maybe",
    "all_tenants=1&project_id=x",
    "tenant_id=",
    "project_id=00000000000000000000000000000000",
    "status=NEVER",
    "status=%F0%9F%92%A5",
    "ip=%5B%28",
    "ip6=%28%3F",
    "name=%28%28%28%28",
    "name=a%7B99999%7D",
    "tags=,,,",
    "not-tags-any=%00",
    "metadata=%7B",
    "metadata=%7B%27a%27:%20%5B",
    "page_reverse=True",
    "page_reverse=sideways",
    "revision_number=-1",
    "size_min=-1",
    "start=x&end=y",
    "detailed=x",
    "resources=VCPU:-1",
    "resources=VCPU:99999999999999999999",
    "required=%21",
    "x%5B%5D=y",
    "%00=%00",
    "&&&===",
    "include_names&include_names=0",
    "enabled=perhaps",
    "domain_id=",
    "fixed_ips=ip_address%3D999",
    "fixed_ips=subnet_id",
    "mac_address=zz",
    "cidr=10.0.0.0/99",
    "ip_version=5",
];

const HEADERS: &[(&str, &[u8])] = &[
    ("content-type", b"text/plain"),
    ("content-type", b"application/octet-stream"),
    ("content-type", b"application/json; charset=utf-16"),
    ("content-type", b"\xff"),
    ("content-type", b"application/openstack-images-v2.1-json-patch"),
    ("openstack-api-version", b"compute latest"),
    ("openstack-api-version", b"volume latest"),
    ("openstack-api-version", b"compute 9.99"),
    ("openstack-api-version", b"compute 2.99999999999"),
    ("openstack-api-version", b"compute"),
    ("openstack-api-version", b"\xff\xff"),
    ("openstack-api-version", b"placement latest"),
    ("x-openstack-nova-api-version", b"2.96"),
    ("x-openstack-nova-api-version", b"-2.1"),
    ("if-match", b"revision_number=-1"),
    ("if-match", b"revision_number=99999999999999999999"),
    ("if-match", b"x"),
    ("range", b"bytes=-1"),
    ("range", b"bytes=5-1"),
    ("range", b"bytes=99999999999999999999-"),
    ("x-subject-token", b"x"),
    ("x-subject-token", b""),
    ("accept", b"application/xml"),
    ("accept-encoding", b"gzip;q=2"),
    ("x-openstack-request-id", b"req-not-one"),
    ("content-length", b"5"),
    ("x-image-meta-store", b"../x"),
];
