//! What a session gives is within what the rules of its identity give, whatever these are.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use token_broker::identity::{Grant, Grants, Role};

use super::World;

/// Of a made-up rule: whether it fits the job, its role, its tokens, and its `session_max`.
type Made = (bool, Role, Vec<String>, i32);

fn any_rules() -> impl Strategy<Value = Vec<Made>> {
    let role = prop::sample::select(vec![Role::Viewer, Role::Ci, Role::Admin]);
    let tokens = prop::collection::vec("[ab][ab*]{0,2}", 1..3);
    let session_max = prop::sample::select(vec![0, 60, 600]);
    prop::collection::vec((prop::bool::weighted(0.8), role, tokens, session_max), 1..5)
}

/// Every name of one to three letters.
fn names() -> Vec<String> {
    let longer = |names: &[String]| names.iter().flat_map(|name| ["a", "b"].map(|letter| format!("{name}{letter}"))).collect();
    let one: Vec<String> = longer(&[String::new()]);
    let two: Vec<String> = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
}

fn shown(answer: &Value) -> Grants {
    let texts = |grant: &Value| serde_json::from_value(grant["tokens"].clone()).expect("texts");
    let grants = answer["grants"].as_array().expect("grants").iter();
    Grants(grants.map(|grant| Grant::stored(grant["role"].as_str().expect("a role"), texts(grant))).collect())
}

fn given<'a>(rules: impl Iterator<Item = &'a Made>) -> Grants {
    Grants(rules.map(|(_, role, tokens, _)| Grant::stored(role.as_str(), tokens.clone())).collect())
}

#[tokio::test]
async fn a_session_gives_what_the_rules_give_that_allow_one_and_never_more_than_its_identity_has() {
    const IDENTITIES: usize = 60;
    let world = World::start().await;
    let mut runner = TestRunner::deterministic();
    let made: Vec<Vec<Made>> = (0..IDENTITIES).map(|_| any_rules().new_tree(&mut runner).expect("rules").current()).collect();
    // A repository of its own for each identity, so that all the rules can be written before the first is needed.
    for (at, rules) in made.iter().enumerate() {
        for (number, (fits, role, tokens, session_max)) in rules.iter().enumerate() {
            let claims =
                json!({"repository": format!("acme/r{at}"), "ref": if *fits { "refs/heads/main" } else { "refs/heads/x" }});
            let rule = json!({"claims": claims, "role": role.as_str(), "tokens": tokens, "session_max": session_max});
            world.write(world.rule(&format!("r{at}-{number}"), rule)).await.expect(201);
        }
    }
    let (mut begun, mut refused, mut narrower) = (0, 0, 0);
    for (at, rules) in made.iter().enumerate() {
        let fitting = || rules.iter().filter(|rule| rule.0);
        let job = json!({"repository": format!("acme/r{at}"), "sub": format!("repo:acme/r{at}:ref:refs/heads/main")});
        let job = world.job(job);
        if fitting().next().is_none() {
            job.post("/sessions", json!({})).await.refused(401, "unauthenticated");
            refused += 1;
            continue;
        }
        let own = shown(&job.get("/whoami").await.expect(200).json);
        let Some(shortest) = fitting().map(|rule| rule.3).filter(|longest| *longest > 0).min() else {
            job.post("/sessions", json!({})).await.refused(403, "forbidden");
            refused += 1;
            continue;
        };
        let answer = job.post("/sessions", json!({})).await.expect(201).json;
        assert_eq!(answer["expires_in"], shortest, "{rules:?}");
        let session = world.app.platform.with_key(answer["session"].as_str().expect("a session").to_owned());
        let has = shown(&session.get("/whoami").await.expect(200).json);
        let expected = given(fitting().filter(|rule| rule.3 > 0));
        for name in names() {
            assert!(has.role_for(&name) <= own.role_for(&name), "{name}: {has:?} of {own:?}");
            assert_eq!(has.role_for(&name), expected.role_for(&name), "{name}: {rules:?}");
            assert_eq!(shown(&answer).role_for(&name), expected.role_for(&name), "{name} as it was told");
            narrower += usize::from(has.role_for(&name) < own.role_for(&name));
        }
        session.post("/sessions", json!({})).await.refused(403, "forbidden");
        begun += 1;
    }
    println!("{begun} sessions, {refused} refused, {narrower} tokens for which a session has less than its identity");
    assert!(begun >= 20 && refused >= 5 && narrower >= 20, "too few to show anything: {begun}, {refused}, {narrower}");
}
