//! Words of the project that are parsed once and trusted afterwards: names and token patterns.

use serde::{Deserialize, Serialize};

/// The name of a team, token, key or rule: `[a-z0-9][a-z0-9._-]{0,62}` (API.md).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, thiserror::Error)]
#[error("must be 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit")]
pub struct InvalidName;

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let head = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let tail = |c: u8| head(c) || matches!(c, b'.' | b'_' | b'-');
        match text.as_bytes() {
            [first, rest @ ..] if head(*first) && rest.len() <= 62 && rest.iter().all(|c| tail(*c)) => Ok(Self(text)),
            _ => Err(InvalidName),
        }
    }
}

impl std::str::FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::try_from(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which tokens a grant covers: a token name in which `*` stands for any run of characters, anchored at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenPattern(String);

/// Why a text is not a token pattern.
#[derive(Debug, thiserror::Error)]
#[error("must be a token name in which '*' may stand for any run of characters, at most 63 long")]
pub struct InvalidPattern;

impl TokenPattern {
    /// Covers every token of the team.
    pub fn all() -> Self {
        Self("*".to_owned())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is covered.
    pub fn matches(&self, name: &str) -> bool {
        glob(&self.0, name)
    }

    /// Whether every name this pattern covers is covered by `wider` too. Sound, not complete: a `*` here is matched only by a
    /// `*` there, which is what "a key never grants more than its creator has" needs.
    pub fn is_within(&self, wider: &TokenPattern) -> bool {
        wider.matches(&self.0)
    }

    /// The same as an SQL `like` pattern (`\` escapes).
    pub fn like(&self) -> String {
        self.0.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_").replace('*', "%")
    }
}

/// Whether `text` is the pattern, in which `*` stands for any run of characters; anchored at both ends.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let head = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(tail) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        // The leftmost match leaves the most for what follows, so trying no other loses nothing.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
}

impl TryFrom<String> for TokenPattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-' | b'*');
        if (1..=63).contains(&text.len()) && text.bytes().all(fits) { Ok(Self(text)) } else { Err(InvalidPattern) }
    }
}

impl From<TokenPattern> for String {
    fn from(pattern: TokenPattern) -> String {
        pattern.0
    }
}

/// What a recreate asks of JFrog differently from now on; kept with the pair that it brought, not before.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Asked {
    /// `None`: as it was.
    pub scope: Option<String>,
    /// `None`: as it was.
    pub audience: Option<String>,
    /// Seconds; `None`: as it was.
    pub expires_in: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_contract() {
        for good in ["a", "0", "a.b_c-d", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", ".a", "a/b", "a b", "ä", "a\0", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    /// The obvious matcher: exponential, and plainly right.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| naive(rest, &name[skip..])),
            Some((c, rest)) => name.split_first().is_some_and(|(n, more)| n == c && naive(rest, more)),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_the_naive_matcher_says(pattern in "[ab.*]{1,8}", name in "[ab.]{0,8}") {
            let parsed = TokenPattern::try_from(pattern.clone()).expect("in the alphabet");
            prop_assert_eq!(parsed.matches(&name), naive(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_two_patterns_at_all_break_that(narrow in "[ab*]{1,4}", wide in "[ab*]{1,4}", name in "[ab]{0,5}") {
            let narrow = TokenPattern::try_from(narrow).expect("a pattern");
            let wide = TokenPattern::try_from(wide).expect("a pattern");
            prop_assert!(!narrow.is_within(&wide) || !narrow.matches(&name) || wide.matches(&name));
        }

        #[test]
        fn a_pattern_within_another_covers_nothing_more(wide in "[ab*]{1,5}", fill in "[ab*]{0,2}", name_fill in "[ab]{0,2}") {
            // Filling a pattern's stars makes one within it, and filling that one's makes a name it covers.
            let narrow = wide.replace('*', &fill);
            prop_assume!(!narrow.is_empty());
            let name = narrow.replace('*', &name_fill);
            let (narrow, wide) = (TokenPattern::try_from(narrow).expect("a pattern"), TokenPattern::try_from(wide).expect("a pattern"));
            prop_assert!(narrow.is_within(&wide) && narrow.matches(&name));
            prop_assert!(wide.matches(&name));
        }
    }
}
