//! JFrog's side of a test: what lives there, and how it goes wrong.

use reqwest::Method;
use serde_json::Value;
use token_broker::dev::simulator::{Fault, Route, Rule, Simulator};

use super::{Answer, Client, TestApp};

impl TestApp {
    /// The ids of all pairs that work at JFrog; identity tokens aside.
    pub fn alive(&self) -> Vec<String> {
        let pairs = self.simulator.tokens().into_iter().filter(|token| token.alive && !token.identity);
        sorted(pairs.map(|token| token.token_id.to_string()).collect())
    }

    /// The next call of this kind goes wrong.
    pub fn once(&self, fault: Fault, route: Route) {
        self.simulator.fault(Rule::once(fault, route));
    }

    /// The call of this kind after the next one goes wrong.
    pub fn second_time(&self, fault: Fault, route: Route) {
        self.once(Fault::DelayBeforeCommit { ms: 0 }, route);
        self.once(fault, route);
    }

    /// How often JFrog was asked for a pair. Whether a token still lives is asked in the background too, and costs nothing.
    pub fn asked_for_pairs(&self) -> usize {
        let counters = self.simulator.counters();
        [Route::Create, Route::Refresh].iter().filter_map(|route| counters.get(route)).map(|counter| counter.calls).sum()
    }

    /// The keep-alive of all tokens is due, and has had its turn when this returns.
    pub async fn keep_alive_now(&self) {
        self.database.run("update jobs set due_at = now() where kind = 'keep-alive'").await;
        for _ in 0..1_000 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            // Taken, a job is held for a lease; done, it is put off for longer or for a second.
            let waiting = "select count(*) from jobs where kind = 'keep-alive' and due_at <= now() + interval '3 s'";
            if self.database.count(waiting).await == 0 {
                return;
            }
        }
    }

    /// Nothing is rotated unasked: for tests in which a short life passes.
    pub async fn no_keep_alive(&self) {
        self.database.run("delete from jobs where kind = 'keep-alive'").await;
    }

    /// A refreshable pair that a person made by hand.
    pub async fn pair_made_by_hand(&self, user: &str) -> Value {
        made_by_hand(&self.simulator, user, "made by hand").await.expect("an answer")
    }

    /// Fails the test if anything is left of a registration that was refused: here, or at JFrog.
    #[track_caller]
    pub fn nothing_is_left_of(&self, name: &str) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            self.admin.get(&format!("/tokens/{name}")).await.expect(404);
            for table in ["tokens", "chains", "attempts", "jobs where kind <> 'close-audit'"] {
                assert_eq!(self.database.count(&format!("select count(*) from {table}")).await, 0, "{table}, asked at {at}");
            }
            assert_eq!(self.alive(), Vec::<String>::new(), "asked at {at}");
        }
    }
}

/// A refreshable pair that a person made by hand, if JFrog's answer comes.
pub async fn made_by_hand(simulator: &Simulator, user: &str, description: &str) -> Option<Value> {
    let person = Client::at(&simulator.url(), simulator.identity_token(user));
    let form = [("refreshable", "true"), ("description", description)];
    let answer = Answer::try_of(person.request(Method::POST, "/access/api/v1/tokens").form(&form)).await.ok()?;
    Some(answer.expect(200).json)
}

/// Whether both chains of a token work.
pub fn both_active(token: &Value) -> bool {
    token["chains"].as_array().is_some_and(|chains| chains.len() == 2 && chains.iter().all(|chain| chain["status"] == "active"))
}

/// JFrog's ids of a token's chains.
pub fn chain_ids(token: &Value) -> Vec<String> {
    let chains = token["chains"].as_array().expect("chains");
    sorted(chains.iter().map(|chain| chain["token_id"].as_str().expect("a pair").to_owned()).collect())
}

pub fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}
