//! What must hold once everything is mended, asked from outside.

use std::{path::Path, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use token_broker::{
    dev::simulator::{OldAccessToken, Route},
    fault::Point,
};

use super::{
    case::{Action, Case, Flow, Replicas},
    witness::Witness,
};
use crate::app::{
    Client,
    jfrog::chain_ids,
    journal::{PENDING, entries, set_aside},
};

/// The token is mended: nothing is in the dark and both chains work.
pub(super) const MENDED: &str = "select count(*) from tokens t where t.state = 'registered'
     and not exists (select from attempts) and not exists (select from jobs where kind = 'settle')
     and 2 = (select count(*) from chains c where c.token_id = t.id and c.state = 'active')";
/// What is still to be done: for the database, and at JFrog.
const UNDONE: &str = "select (select count(*) from attempts) + (select count(*) from jobs where kind in ('settle', 'sweep'))
     + (select count(*) from chains where replaced_access_token is not null)";

/// Until the token is mended.
pub(super) async fn mended(witness: &Witness, within: Duration) {
    let asked = async {
        while witness.count(MENDED).await != 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(within, asked).await.is_err() {
        panic!("it is not mended after {within:?}: {}", left(witness).await);
    }
}

/// Until nothing is left to be done, in the database, in the journals and at JFrog.
pub(super) async fn at_rest(witness: &Witness, journals: &[&Path], within: Duration) {
    let asked = async {
        loop {
            // A sweep that came while something else was under way comes again after a minute. Nobody waits for that here; but
            // what may still be committed must not be swept, so not before another lease.
            let again =
                "update jobs set due_at = now() + interval '4 s' where kind = 'sweep' and due_at > now() + interval '20 s'";
            witness.run(again).await;
            let undone = witness.count(UNDONE).await != 0 || journals.iter().any(|dir| entries(dir, PENDING) > 0);
            if !undone && orphans(witness).await.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    if tokio::time::timeout(within, asked).await.is_err() {
        let pending: Vec<_> = journals.iter().map(|dir| entries(dir, PENDING)).collect();
        let orphans = orphans(witness).await;
        panic!("no rest after {within:?}: pending {pending:?} orphans {orphans:?} {}", left(witness).await);
    }
    assert!(journals.iter().all(|dir| set_aside(dir) == 0), "a journal entry was set aside");
}

async fn left(witness: &Witness) -> String {
    let all = "select 'job ' || j::text from jobs j union all select 'attempt ' || kind || ' until ' || lease_until from attempts
               union all select 'chain ' || letter || ' ' || state || ' ' || generation || ' ' || coalesce(replaced_jfrog_token_id, '') from chains
               union all select 'token ' || state || ' ' || generation || ' ' || coalesce(last_error_kind, '') from tokens";
    witness.texts(all).await.join("; ")
}

/// Pairs that live at JFrog, could be rotated there, and are not ours.
async fn orphans(witness: &Witness) -> Vec<String> {
    let ours = witness.texts("select jfrog_token_id from chains where jfrog_token_id is not null").await;
    // What a rotation replaced is no orphan: it is JFrog's to end it, now, soon or never.
    let theirs = witness.alive().into_iter().filter(|token| token.replaced_by.is_none());
    theirs.map(|token| token.token_id.to_string()).filter(|id| !ours.contains(id)).collect()
}

/// Both chains can be rotated for real, and what was handed out before survives one rotation.
pub(super) async fn rotates(witness: &Witness, admin: &Client, case: &Case) {
    let (mut rotated, mut last) = (0, String::new());
    // A busy machine may keep a rotation from being sent in time: it is asked for again.
    for _ in 0..20 {
        // Whoever asks before is handed the younger pair; the older one is rotated.
        witness.refresh(admin, json!({"max_age": 3600})).await.expect("an answer").expect(200);
        let before = witness.last_handed();
        let answer = witness.refresh(admin, json!({"max_age": 0})).await.expect("an answer").expect(200);
        assert!(before.is_none_or(|before| witness.simulator.is_alive(&before)), "a rotation for real broke a running job");
        rotated += usize::from(answer.json["refreshed"] == true);
        last = answer.json["warnings"].to_string();
        if rotated == 2 {
            break;
        }
    }
    assert_eq!(rotated, 2, "both chains can be rotated for real; the last answer warns of {last}");
    mended(witness, Duration::from_secs(20)).await;
    let token = witness.ask(admin, Method::GET, "/tokens/deploy", Value::Null).await.expect("an answer").expect(200).json;
    assert!(token["chains"].as_array().expect("chains").iter().all(|chain| chain["status"] == "active"), "{token:#}");
    assert_eq!(orphans(witness).await, Vec::<String>::new());
    if case.old == OldAccessToken::Revoked {
        let mut alive: Vec<_> = witness.alive().into_iter().map(|token| token.token_id.to_string()).collect();
        alive.sort();
        assert_eq!(alive, chain_ids(&token), "what lives at JFrog is what is registered");
    }
}

/// No refresh token was used twice, whatever became of the first use.
pub(super) fn spent_once(witness: &Witness) {
    assert!(witness.simulator.max_refreshes_in_flight() <= 1, "two refreshes of one refresh token were in flight");
    let wasted: Vec<_> = witness.calls(Route::Refresh).into_iter().filter(|call| !call.committed).collect();
    assert!(wasted.is_empty(), "a refresh token was sent that was spent: {wasted:#?}");
}

/// A rotation that failed cost at JFrog exactly what it must: refreshes, and creates with the two of the registration.
pub(super) fn cost(witness: &Witness, case: &Case) {
    // With two replicas, callers go on rotating meanwhile.
    if case.flow != Flow::Rotate || case.replicas == Replicas::Two {
        return;
    }
    let expected = match case.point {
        // A stalled one does not send any more: its answer could be late.
        Point::BeforeBegin => (0, 2),
        // Nothing was spent, but nobody can know: the chain is made anew.
        Point::Begun | Point::Prepared => (0, 3),
        Point::Answered => (1, 3),
        // The journal saves the pair, but for a stalled owner: its lease was over.
        Point::Journaled => (1, if case.action == Action::Stall { 3 } else { 2 }),
        Point::Committed | Point::Marked => (1, 2),
        Point::Recovered | Point::Revoked | Point::Saving => return,
    };
    assert_eq!(
        (witness.calls(Route::Refresh).len(), witness.calls(Route::Create).len()),
        expected,
        "refreshes and creates at JFrog"
    );
}
