//! Inexact filters of lists: `name__contains` and its kin.

use crate::sql::{Where, params};
use serde_json::{Map, Value};

/// Attributes of the client's own, or options: a JSON object.
pub type Extra = Map<String, Value>;

/// Where in a text another one must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPlace {
    /// It is the whole text.
    Whole,
    /// Anywhere.
    Inside,
    /// At the beginning.
    Start,
    /// At the end.
    End,
}

/// A condition on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTest {
    /// What must be found.
    pub text: String,
    /// Where.
    pub place: TextPlace,
    /// Whether upper and lower case are the same.
    pub any_case: bool,
}

impl TextTest {
    /// The whole text, exactly.
    pub fn is(text: impl Into<String>) -> Self {
        Self { text: text.into(), place: TextPlace::Whole, any_case: false }
    }
}

impl Where {
    /// Adds conditions on a text column. `LIKE` is not used: what it does with case differs between databases.
    pub(crate) fn and_texts(&mut self, column: &str, tests: &[TextTest]) -> &mut Self {
        for test in tests {
            let text = if test.any_case { test.text.to_lowercase() } else { test.text.clone() };
            let folded = format!("lower({column})");
            let column = if test.any_case { folded.as_str() } else { column };
            match test.place {
                TextPlace::Whole => self.and(&format!("{column} = ?"), params![text]),
                TextPlace::Inside if text.is_empty() => self,
                TextPlace::Inside => self.and(&format!("replace({column}, ?, '') <> {column}"), params![text]),
                TextPlace::Start => {
                    let length = length(&text);
                    self.and(&format!("substr({column}, 1, {length}) = ?"), params![text])
                }
                TextPlace::End => {
                    let length = length(&text);
                    let condition = format!(
                        "length({column}) >= {length} AND substr({column}, length({column}) - {length} + 1) = ?"
                    );
                    self.and(&condition, params![text])
                }
            };
        }
        self
    }

    /// Adds: this JSON array of texts holds the text, or does not.
    pub(crate) fn and_holds(&mut self, column: &str, text: &str, wanted: bool) -> &mut Self {
        let test = if wanted { "<>" } else { "=" };
        self.and(&format!("replace({column}, ?, '') {test} {column}"), params![quoted(text)])
    }

    /// Adds: this JSON array holds one of the texts; or, unless wanted, none of them.
    pub(crate) fn and_holds_any(&mut self, column: &str, texts: &[String], wanted: bool) -> &mut Self {
        let (test, glue) = if wanted { ("<>", " OR ") } else { ("=", " AND ") };
        let each = format!("replace({column}, ?, '') {test} {column}");
        let condition = vec![each; texts.len()].join(glue);
        let values = texts.iter().flat_map(|text| params![quoted(text)]).collect();
        self.and(&format!("({condition})"), values)
    }

    /// Adds: this JSON array does not hold all of the texts.
    pub(crate) fn and_lacks_one(&mut self, column: &str, texts: &[String]) -> &mut Self {
        let condition = vec![format!("replace({column}, ?, '') = {column}"); texts.len()].join(" OR ");
        let values = texts.iter().flat_map(|text| params![quoted(text)]).collect();
        self.and(&format!("({condition})"), values)
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A text as it stands in a JSON array.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
