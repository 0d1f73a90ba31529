//! At rest, from outside: each name is gone without a trace, or whole.

use std::{collections::HashSet, time::Duration};

use serde_json::json;
use token_broker::dev::simulator::{Route, TokenView};

use super::storm::{BY_HAND, NAMES, World, name};
use crate::{
    app::{
        Client,
        jfrog::{both_active, chain_ids},
    },
    orphans::{marker_of, nothing_else_was_touched},
};

impl World {
    /// Waits until everything is still, and fails the test unless it is whole. Tells what is left at JFrog that cannot be helped.
    pub(super) async fn look(&self, admin: &Client) -> String {
        self.app.simulator.clear_faults();
        self.app.simulator.knobs(|knobs| knobs.latency_ms = 2);
        let mut registered = 0;
        for token in 0..NAMES {
            if self.settled(admin, &name(token)).await {
                registered += 1;
                self.rotates(admin, &name(token)).await;
            }
        }
        let left = self.nothing_is_left_over(admin).await;
        for (what, query) in [
            ("an attempt", "select count(*) from attempts"),
            ("creating or revoked", "select count(*) from tokens where state <> 'registered' or identity_token is not null"),
            ("a chain that does not work", "select count(*) from chains where state <> 'active'"),
            (
                "a job of nobody's",
                "select count(*) from jobs where subject not in (select id from tokens) and kind <> 'close-audit'",
            ),
        ] {
            assert_eq!(self.app.database.count(query).await, 0, "{what} is left");
        }
        assert_eq!(self.app.database.count("select count(*) from tokens").await, registered);
        assert!(self.app.simulator.max_refreshes_in_flight() <= 1, "a refresh token was spent twice at once");
        nothing_else_was_touched(&self.app.simulator);
        self.each_has_its_row().await;
        format!("{registered} of {NAMES} names registered in the end, {left}")
    }

    /// Whether the name is registered in the end.
    async fn settled(&self, admin: &Client, name: &str) -> bool {
        let path = format!("/tokens/{name}");
        for _ in 0..400 {
            let token = admin.get(&path).await;
            if token.status == 404 {
                return false;
            }
            if both_active(&token.json) && token.json["status"] == "active" {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let rows = "select jsonb_agg(to_jsonb(j))::text from jobs j";
        panic!("it never is whole: {:#}, jobs {}", admin.get(&path).await.json, self.app.database.text(rows).await);
    }

    async fn rotates(&self, admin: &Client, name: &str) {
        for _ in 0..60 {
            let answer = admin.refresh(name, json!({"max_age": 0, "wait": 5})).await;
            if answer.status == 200 && answer.json["refreshed"] == true {
                assert!(self.app.simulator.is_alive(answer.access_token()), "a dead token was handed out");
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("it cannot be rotated: {:#}", admin.get(&format!("/tokens/{name}")).await.json);
    }

    async fn nothing_is_left_over(&self, admin: &Client) -> String {
        let (mut missing, mut left) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            // A revocation whose answer was lost is repeated after a minute: that is not waited for.
            self.app.database.run("update jobs set due_at = now() where kind = 'sweep' and failures > 0").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut ours = HashSet::new();
            for token in 0..NAMES {
                let view = admin.get(&format!("/tokens/{}", name(token))).await;
                ours.extend(if both_active(&view.json) { chain_ids(&view.json) } else { Vec::new() });
            }
            let alive: Vec<_> = self.app.simulator.tokens().into_iter().filter(|token| token.alive && !token.identity).collect();
            missing = ours.iter().filter(|id| alive.iter().all(|token| token.token_id.to_string() != **id)).cloned().collect();
            left = self.not_the_persons(alive.into_iter().filter(|token| !ours.contains(&token.token_id.to_string())));
            let known = self.known_limits(&left).await;
            let sweeps = self.app.database.count("select count(*) from jobs where kind = 'sweep'").await;
            if missing.is_empty() && known.0 + known.1 == left.len() && sweeps == 0 {
                return format!(
                    "left at JFrog: {} pairs of imports whose rotation's answer was lost, {} of moves to another user likewise",
                    known.0, known.1
                );
            }
        }
        let ids: Vec<String> = left.iter().filter_map(|token| Some(format!("'{}'", marker_of(&token.description)?.1))).collect();
        let trail = format!(
            "select coalesce(string_agg(concat_ws(' ', at, token_name, token_id, action, outcome, reason, jfrog_token_id, detail),
                                        chr(10) order by id), 'none') from audit_events
             where token_id::text = any(array[{}]::text[]) and action <> 'token.hand_out'",
            ids.join(",")
        );
        let trail = self.app.database.text(&trail).await;
        panic!("registered and dead: {missing:?}; alive and not registered: {left:#?}\ntheir trail: {trail}");
    }

    /// A pair that nobody adopted, or whose import was given up, is the person's own still.
    fn not_the_persons(&self, tokens: impl Iterator<Item = TokenView>) -> Vec<TokenView> {
        let pasted = self.pasted.lock().expect("no panic there");
        let made: HashSet<_> =
            self.app.simulator.calls().into_iter().filter(|c| c.route == Route::Create).filter_map(|c| c.new_token_id).collect();
        let own = |token: &TokenView| {
            token.description == BY_HAND && made.contains(&token.token_id) && !pasted.contains(&token.token_id.to_string())
        };
        tokens.filter(|token| !own(token)).collect()
    }

    /// Answers that were lost of calls that nobody can find out about: the one rotation of a pair that a person made, and a recreate
    /// for another user that was not repeated before the token was deleted.
    async fn known_limits(&self, left: &[TokenView]) -> (usize, usize) {
        let rotated: HashSet<_> = self.app.simulator.tokens().into_iter().filter_map(|token| token.replaced_by).collect();
        let imports = left.iter().filter(|token| token.description == BY_HAND && rotated.contains(&token.token_id)).count();
        let mut moves = 0;
        for token in left.iter().filter(|token| token.user.starts_with("successor")) {
            let Some((_, id, _)) = marker_of(&token.description) else { continue };
            let lost = format!(
                "select count(*) from audit_events where token_id = '{id}'
                 and (action = 'chain.recreate' and outcome = 'failed'
                      or action = 'attempt.recover' and detail->>'attempt' = 'recreate')"
            );
            moves += usize::from(self.app.database.count(&lost).await > 0);
        }
        (imports, moves)
    }

    /// Every success has its audit row.
    async fn each_has_its_row(&self) {
        let done = std::mem::take(&mut *self.done.lock().expect("no panic there"));
        for (what, action) in [("refresh", "token.hand_out"), ("recreate", "chain.recreate"), ("delete", "token.delete")] {
            let ids: Vec<String> = done.iter().filter(|d| d.what == what).map(|d| format!("'{}'", d.request_id)).collect();
            let audited = format!(
                "select count(distinct request_id) from audit_events
                 where action = '{action}' and outcome = 'done' and request_id in ({})",
                ids.join(",")
            );
            assert_eq!(self.app.database.count(&audited).await, i64::try_from(ids.len()).expect("few"), "{what}");
        }
        // Another request, or the job, may have completed what this one began.
        for registered in done.iter().filter(|done| !done.chains.is_empty()) {
            let audited = format!(
                "select count(*) from audit_events made join audit_events told on told.token_id = made.token_id
                 where made.jfrog_token_id = '{}' and told.action in ('token.create', 'token.import') and told.outcome = 'done'",
                registered.chains[0]
            );
            assert!(self.app.database.count(&audited).await > 0, "{} {}", registered.what, registered.request_id);
        }
    }
}
