//! Patterns for the values of claims.

use crate::names::glob;

/// What `*` does not cross: it may not make a longer path, or another part of a `sub`, out of the one that was meant.
const SEPARATORS: [char; 3] = ['/', ':', '@'];

/// The longest pattern, in bytes.
const LONGEST: usize = 512;

/// Literal text in which `*` stands for any run of characters but `/`, `:` and `@`; anchored at both ends, compared byte for byte.
/// There is nothing else: no alternation, no escape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimPattern(String);

/// Why a text is not a pattern.
#[derive(Debug, thiserror::Error)]
#[error("must be 1 to {LONGEST} bytes of text without control characters, in which `*` stands for anything but `/`, `:` and `@`")]
pub(super) struct InvalidPattern;

impl ClaimPattern {
    /// The pattern of this text.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let fits = (1..=LONGEST).contains(&text.len()) && !text.contains(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidPattern) }
    }

    /// A piece of a pattern, between two of its separators.
    pub(super) fn piece(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `value` is of this pattern. The separators must line up one by one, so each `*` stays between two of them.
    pub(super) fn matches(&self, value: &str) -> bool {
        let pattern = self.0.as_str();
        pattern.matches(SEPARATORS).eq(value.matches(SEPARATORS))
            && pattern.split(SEPARATORS).zip(value.split(SEPARATORS)).all(|(pattern, value)| glob(pattern, value))
    }
}

/// Whether a pattern, or a piece of one, stands for itself only.
pub(super) fn is_full(text: &str) -> bool {
    !text.is_empty() && !text.contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, value: &str) -> bool {
        ClaimPattern::parse(pattern).expect("a pattern").matches(value)
    }

    /// The obvious matcher: exponential, and plainly right.
    fn naive(pattern: &[char], value: &[char]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some(('*', rest)) => {
                let crossable = value.iter().take_while(|c| !SEPARATORS.contains(c)).count();
                (0..=crossable).any(|skip| naive(rest, &value[skip..]))
            }
            Some((c, rest)) => value.split_first().is_some_and(|(v, more)| v == c && naive(rest, more)),
        }
    }

    #[test]
    fn a_star_stands_for_any_run_between_two_separators() {
        for (pattern, value) in [
            ("org/name", "org/name"),
            ("org/*", "org/name"),
            ("org/*", "org/"),
            ("refs/heads/release-*", "refs/heads/release-1.2"),
            ("*/*", "a/b"),
            ("a*b*c", "abbc"),
            ("repo:org/*:ref:refs/heads/*", "repo:org/x:ref:refs/heads/main"),
            ("*", "*"),
            ("ü*", "üö"),
        ] {
            assert!(matches(pattern, value), "{pattern} {value}");
        }
    }

    #[test]
    fn nothing_else_matches() {
        for (pattern, value) in [
            ("org/name", "org/name2"),
            ("org/name", "xorg/name"),
            ("org/name", "ORG/name"),
            ("org/name", "оrg/name"), // a Cyrillic о
            ("org/*", "org/a/b"),
            ("org/*", "org/a:b"),
            ("org/*", "org/a@b"),
            ("*", "org/name"),
            ("*", "a:b"),
            ("*/name", "a/b/name"),
            ("a*", "a/"),
            ("a/*", "a:b"),
            ("a|b", "a"),
            ("a|b", "b"),
            ("a.c", "abc"),
            ("[ab]", "a"),
            ("a?", "ab"),
            (r"a\*", "a*"),
            ("^a$", "a"),
            ("a", "a\n"),
        ] {
            assert!(!matches(pattern, value), "{pattern} {value}");
        }
        assert!(matches("a|b", "a|b"), "an alternation is literal text");
    }

    #[test]
    fn a_pattern_is_1_to_512_bytes_without_control_characters() {
        for good in ["a", "*", "ü", &"x".repeat(512)] {
            assert!(ClaimPattern::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a\n", "\0", "a\tb", "\u{85}", &"x".repeat(513), &"ü".repeat(257)] {
            assert!(ClaimPattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn patterns_match_as_the_naive_matcher_says(pattern in "[ab*/:@]{1,8}", value in "[ab*/:@]{0,8}") {
            let (p, v): (Vec<char>, Vec<char>) = (pattern.chars().collect(), value.chars().collect());
            prop_assert_eq!(matches(&pattern, &value), naive(&p, &v));
        }

        #[test]
        fn a_filled_pattern_matches_unless_the_fill_has_a_separator(pattern in "[a*/:@]{1,8}", fill in "[ab]{0,3}", c in "[/:@]") {
            prop_assert!(matches(&pattern, &pattern.replace('*', &fill)));
            let crossing = pattern.replace('*', &format!("{fill}{c}"));
            prop_assert!(!pattern.contains('*') || !matches(&pattern, &crossing));
        }
    }
}
