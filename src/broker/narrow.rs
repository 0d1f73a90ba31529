//! What a child token may be: nothing wider than its registration allows. Pure.

use crate::names::glob;

const GROUPS: &str = "applied-permissions/groups:";

/// The first word of `asked` that no word of `allowed` covers. Words are separated by spaces, as in JFrog's parameters.
pub(super) fn scope_beyond<'a>(asked: &'a str, allowed: &str) -> Option<&'a str> {
    words(asked).find(|asked| !words(allowed).any(|allowed| *asked == allowed || fewer_groups(asked, allowed)))
}

/// The same of audiences, in which `*` stands for anything: `jfrt@*` is within `*@*`.
pub(super) fn audience_beyond<'a>(asked: &'a str, allowed: &str) -> Option<&'a str> {
    words(asked).find(|asked| !words(allowed).any(|allowed| glob(allowed, asked)))
}

/// Some of the same groups.
fn fewer_groups(asked: &str, allowed: &str) -> bool {
    let groups = asked.strip_prefix(GROUPS).zip(allowed.strip_prefix(GROUPS));
    groups.is_some_and(|(asked, allowed)| {
        asked.split(',').all(|group| !group.is_empty() && allowed.split(',').any(|allowed| allowed == group))
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_narrower_word_by_word_and_group_by_group() {
        let allowed = "applied-permissions/groups:readers,deployers artifact:libs:rw system:metrics:r";
        for narrower in [
            allowed,
            "applied-permissions/groups:readers",
            "applied-permissions/groups:deployers,readers",
            "system:metrics:r artifact:libs:rw",
            "",
        ] {
            assert_eq!(scope_beyond(narrower, allowed), None, "{narrower}");
        }
        for wider in [
            "applied-permissions/groups:admins",
            "applied-permissions/groups:readers,admins",
            "applied-permissions/groups:",
            "applied-permissions/groups:readers,",
            "applied-permissions/user",
            "applied-permissions/admin",
            "artifact:libs:rwd",
            "artifact:lib:rw",
            "artifact:*:rw",
            "SYSTEM:metrics:r",
        ] {
            assert_eq!(scope_beyond(&format!("artifact:libs:rw {wider}"), allowed), Some(wider));
            assert_eq!(scope_beyond(wider, ""), Some(wider));
        }
    }

    #[test]
    fn an_audience_is_narrower_where_a_pattern_covers_it() {
        assert_eq!(audience_beyond("jfrt@01hzy jfxr@*", "*@*"), None);
        assert_eq!(audience_beyond("jfrt@01hzy", "jfrt@*"), None);
        assert_eq!(audience_beyond("jfrt@* jfxr@01hzy", "jfrt@*"), Some("jfxr@01hzy"));
        assert_eq!(audience_beyond("*@*", "jfrt@*"), Some("*@*"));
        assert_eq!(audience_beyond("*", "*@*"), Some("*"));
    }
}
