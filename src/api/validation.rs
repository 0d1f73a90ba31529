//! Checks of request fields, collected: a caller is told everything that is wrong at once.

use super::problem::{FieldError, Problem};

#[derive(Default)]
pub(super) struct Validation(Vec<FieldError>);

impl Validation {
    /// Notes `message` against `field` unless `ok`.
    pub(super) fn check(&mut self, field: &str, ok: bool, message: &str) -> &mut Self {
        if !ok {
            self.0.push(FieldError { field: field.to_owned(), message: message.to_owned() });
        }
        self
    }

    /// Free text for people and JFrog: at most `longest` characters, and none that controls, nor one that turns the direction of
    /// writing: people would read another text than was written.
    pub(super) fn text(&mut self, field: &str, text: Option<&str>, longest: usize) -> &mut Self {
        let controls = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let ok = text.is_none_or(|text| text.chars().count() <= longest && !text.chars().any(controls));
        self.check(field, ok, &format!("must have at most {longest} characters, none of them a control character"))
    }

    /// Words of JFrog's parameters: visible ASCII, separated by single spaces.
    pub(super) fn words(&mut self, field: &str, text: Option<&str>, longest: usize) -> &mut Self {
        let ok = text.is_none_or(|text| {
            (1..=longest).contains(&text.len())
                && text.split(' ').all(|word| !word.is_empty() && word.bytes().all(|c| c.is_ascii_graphic()))
        });
        self.check(field, ok, &format!("must be 1 to {longest} visible ASCII characters, words separated by one space"))
    }

    /// Scopes, each a word of JFrog's; together they must fit where one fits.
    pub(super) fn scopes(&mut self, field: &str, scopes: Option<&[String]>) -> &mut Self {
        let word = |scope: &String| !scope.is_empty() && scope.bytes().all(|c| c.is_ascii_graphic());
        let ok = scopes.is_none_or(|scopes| scopes.join(" ").len() <= 500 && scopes.iter().all(word));
        self.check(field, ok, "must be scopes of visible ASCII without spaces, together at most 500 characters")
    }

    /// A credential of JFrog: it must fit into a header.
    pub(super) fn credential(&mut self, field: &str, text: &str) -> &mut Self {
        let ok = (1..=16 * 1024).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
        self.check(field, ok, "must be a JFrog token: visible ASCII without spaces, at most 16 KiB")
    }

    pub(super) fn seconds(&mut self, field: &str, seconds: Option<i64>, range: std::ops::RangeInclusive<i64>) -> &mut Self {
        let ok = seconds.is_none_or(|seconds| range.contains(&seconds));
        self.check(field, ok, &format!("must be a number of seconds from {} to {}", range.start(), range.end()))
    }

    pub(super) fn done(&mut self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(std::mem::take(&mut self.0))) }
    }
}
