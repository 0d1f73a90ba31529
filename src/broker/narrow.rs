//! What a child token may be: nothing wider than its registration allows, and nothing wider than what was asked. Pure.

use super::{BrokerError, issue::IssueChild};
use crate::{
    jfrog::{ChildRequest, Pair},
    names::glob,
    store::{ChainRow, TokenView},
};

/// Seconds, unless something else is asked for.
const AN_HOUR: i64 = 3_600;
const GROUPS: &str = "applied-permissions/groups:";

/// What is asked of JFrog for a child token, if the registration allows it.
///
/// # Errors
/// `Invalid`: it does not.
pub(super) fn child_request(
    view: &TokenView,
    chain: &ChainRow,
    asked: &IssueChild,
    description: String,
) -> Result<ChildRequest, BrokerError> {
    let invalid = |field, message| Err(BrokerError::Invalid { field, message });
    let longest = i64::from(view.issue_max_expires_in);
    let expires_in = asked.expires_in.unwrap_or(AN_HOUR.min(longest));
    if expires_in > longest {
        return invalid("expires_in", format!("is longer than this token allows: {longest} seconds (issue_max_expires_in)"));
    }
    // Where the registration names no scope, the chain has what JFrog's default came to.
    let allowed = match &view.issue_scopes {
        Some(scopes) => Some(scopes.join(" ")),
        None => view.scope.clone().or_else(|| chain.scope.clone()),
    };
    if let Some(asked) = &asked.scope
        && let Some(beyond) = scope_beyond(asked, allowed.as_deref().unwrap_or_default())
    {
        return invalid("scope", format!("{beyond} is wider than this token allows (issue_scopes)"));
    }
    let audience = view.audience.as_deref();
    if let Some(asked) = &asked.audience
        && let Some(beyond) = audience_beyond(asked, audience.unwrap_or("*@*"))
    {
        return invalid("audience", format!("{beyond} is wider than this token's audience"));
    }
    Ok(ChildRequest {
        description,
        scope: asked.scope.clone().or(allowed),
        audience: asked.audience.clone().or_else(|| view.audience.clone()),
        expires_in,
        project_key: view.project_key.clone(),
        include_reference_token: asked.include_reference_token,
    })
}

/// JFrog's id and the lifetime of what it gave, if that is no more than what was asked; else in what it is.
pub(super) fn as_asked(request: &ChildRequest, chain: &ChainRow, view: &TokenView, pair: &Pair) -> Result<(String, i64), String> {
    let token_id = pair.token_id.clone().ok_or("it has no id, so it could not be revoked")?;
    let expires_in = pair.expires_in.filter(|given| *given <= request.expires_in);
    let expires_in = expires_in.ok_or_else(|| format!("it lives longer than {} seconds", request.expires_in))?;
    let scope = pair.scope.as_deref().ok_or("it does not say its scope")?;
    let asked = request.scope.as_deref().or(chain.scope.as_deref()).unwrap_or_default();
    if let Some(beyond) = scope_beyond(scope, asked) {
        return Err(format!("its scope has {beyond}"));
    }
    let audience = request.audience.as_deref().unwrap_or("*@*");
    if let Some(beyond) = pair.audience.iter().find(|given| audience_beyond(given, audience).is_some()) {
        return Err(format!("its audience has {beyond}"));
    }
    if view.subject.is_some() && pair.subject.is_some() && view.subject != pair.subject {
        return Err("it is another user's".to_owned());
    }
    Ok((token_id, expires_in))
}

/// The first word of `asked` that no word of `allowed` covers. Words are separated by spaces, as in JFrog's parameters.
fn scope_beyond<'a>(asked: &'a str, allowed: &str) -> Option<&'a str> {
    words(asked).find(|asked| !words(allowed).any(|allowed| *asked == allowed || fewer_groups(asked, allowed)))
}

/// The same of audiences, in which `*` stands for anything: `jfrt@*` is within `*@*`.
fn audience_beyond<'a>(asked: &'a str, allowed: &str) -> Option<&'a str> {
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
