//! Every crash point of DESIGN.md's table × {killed at once, panic, stall} × {one, two replicas} × the three ways in which JFrog may
//! treat the old access token. Real Postgres, real processes; the oracles are the simulator and the database.

mod case;
mod rest;
mod run;
mod witness;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Instant,
};

use case::{Action, Case};
use futures_util::{FutureExt, future::join_all};
use tokio::sync::Semaphore;

/// Cases that run at once, of all tests together: Postgres has room for so many.
static ROOM: Semaphore = Semaphore::const_new(16);
/// Cases of one test that run at once, each on a database and a simulator of its own: most of their time they wait for a lease.
const LANES: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_crash_point_a_replica_costs_no_token() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    all(Action::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_any_crash_point_costs_no_token() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    all(Action::Panic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_at_any_crash_point_a_replica_costs_no_token_and_harms_nothing_when_it_wakes_up() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    all(Action::Stall).await;
}

async fn all(action: Action) {
    let began = Instant::now();
    let cases = Case::all(action);
    let (count, queue) = (cases.len(), Arc::new(Mutex::new(cases)));
    let lanes = (0..LANES).map(|_| tokio::spawn(lane(Arc::clone(&queue))));
    let failed: Vec<String> = join_all(lanes).await.into_iter().flat_map(|lane| lane.expect("it catches")).collect();
    println!("{action:?}: {count} cases in {:.1?}", began.elapsed());
    assert!(failed.is_empty(), "{} of {count} cases failed:\n{}", failed.len(), failed.join("\n"));
}

/// One case after another on the same parts; after a failure on new ones. Returns what failed.
async fn lane(queue: Arc<Mutex<Vec<Case>>>) -> Vec<String> {
    let (mut failed, mut parts) = (Vec::new(), None);
    loop {
        let _room = ROOM.acquire().await.expect("it is never closed");
        let next = queue.lock().expect("no panic there").pop();
        let Some(case) = next else { return failed };
        let (began, given) = (Instant::now(), parts.take());
        match AssertUnwindSafe(run::run(given, case)).catch_unwind().await {
            Ok(used) => parts = Some(used),
            Err(panic) => failed.push(format!("{case}: {}", said(panic.as_ref()))),
        }
        println!("{case}: {} after {:.1?}", if parts.is_some() { "ok" } else { "FAILED" }, began.elapsed());
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
