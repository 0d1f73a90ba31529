//! Every key is changed while jobs go on asking: K1 counts what fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use token_broker::crypto;

use crate::{
    connection::Connection,
    load::closed,
    measure::{Figure, short},
    rows::Measured,
    service::Service,
    table::{Row, at_most},
    world::{World, count},
};

const CALLERS: usize = 16;
/// One request of so many is a forced refresh.
const REFRESHES: usize = 20;

/// K1. A new master key is first, every data key is wrapped by it, and every row is sealed by a new data key.
pub async fn changed_under_load(world: &World) -> anyhow::Result<Measured> {
    let tokens = if world.short { 100 } else { 1_000 };
    world.jfrog_takes(Duration::ZERO);
    let (url, journal) = (world.database().await?, world.place("journal")?);
    let before = Service::start_with(world, &url, journal.clone(), &[]).await?;
    let platform = before.platform().await?;
    let (admin, ci) = platform.team("bench").await?;
    admin.register(world, tokens).await?;
    drop(before);
    let both = format!("next:{},{}", STANDARD.encode(crypto::random_bytes::<32>()), world.master_keys);
    let service = Service::start_with(world, &url, journal, &[("TOKEN_BROKER_MASTER_KEYS", &both)]).await?;
    let platform = platform.of(&service);

    let requests: Arc<[Vec<u8>]> = (0..tokens * 2)
        .map(|n| if n % REFRESHES == 0 { admin.refresh(n % tokens, r#"{"max_age":0}"#) } else { ci.refresh(n % tokens, "") })
        .collect();
    let failed = Arc::new(AtomicUsize::new(0));
    let job = {
        let failed = Arc::clone(&failed);
        async move |connection: &mut Connection, number: usize| {
            if connection.call(&requests[number % requests.len()]).await?.status != 200 {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    };
    let mut asked = closed(service.address, CALLERS, world.length(), job.clone()).await?.latencies.len();
    let refreshes = world.simulator.refreshes();
    let old = "select (select count(*) from data_keys where master_key_id = 'bench')
                      + (select count(*) from chains where sealed_by(access_token) in (select id from data_keys where not current))
                      + (select count(*) from data_keys where rotated_at is null and created_at < (select created_at from master_keys where id = 'next'))";
    let began = Instant::now();
    platform.post("/encryption-keys/rewrap", json!({})).await?;
    platform.post("/encryption-keys/rotate", json!({})).await?;
    loop {
        asked += closed(service.address, CALLERS, world.length(), job.clone()).await?.latencies.len();
        let left = count(&url, old).await?;
        if left == 0 {
            break;
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(90), "{left} rows and keys are left");
    }
    let (took, rows) = (short(began.elapsed().as_secs_f64()), tokens * 2);
    let refreshes = world.simulator.refreshes() - refreshes;
    Ok(Row {
        id: "K1",
        what: "requests that failed while every master key and data key was changed",
        bounds: at_most(0.0, 0.0),
        figure: Figure::of(&[failed.load(Ordering::Relaxed) as f64]),
        detail: format!("{rows} rows in {took} s beside {asked} requests, {refreshes} of them refreshes"),
    }
    .into())
}
