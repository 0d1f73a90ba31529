//! Many callers at once for one stale token: R9 counts the calls that JFrog sees, R10 times the last answer. And many tokens at once
//! over few connections to Postgres: R11.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::sync::Barrier;

use crate::{
    connection::Connection,
    measure::{Figure, in_turn},
    rows::Measured,
    service::{Api, Service},
    table::{Row, at_least, at_most},
    world::{World, run},
};

/// JFrog's time, and how often each is tried with 500 and with 5,000 callers on each number of replicas: 100 in all.
const TRIALS: [(u64, usize, usize); 4] = [(0, 15, 2), (20, 15, 2), (200, 10, 1), (2_000, 4, 1)];

/// Replicas on one database, and a token.
struct Replicas {
    services: Vec<Service>,
    ci: Api,
}

impl Replicas {
    async fn start(world: &World) -> anyhow::Result<Self> {
        world.jfrog_takes(Duration::ZERO);
        let url = world.database().await?;
        let mut services = vec![Service::start(world, &url).await?];
        let (admin, ci) = services[0].platform().await?.team("bench").await?;
        admin.register(world, 1).await?;
        for _ in 1..3 {
            services.push(Service::start(world, &url).await?);
        }
        Ok(Self { services, ci })
    }

    /// Everybody asks at once; how often JFrog was called, and how long after its answer the last was answered.
    async fn stampede(&self, world: &World, callers: usize, replicas: usize) -> anyhow::Result<(usize, Duration)> {
        stale(&self.services[0].url).await?;
        let mut connections = Vec::with_capacity(callers);
        for number in 0..callers {
            connections.push(Connection::open_for_once(self.services[number % replicas].address).await?);
        }
        let (request, together) = (self.ci.refresh(0, ""), Barrier::new(callers));
        let before = world.simulator.refreshes();
        let watching = world.simulator.clone();
        let returned = tokio::spawn(async move {
            while watching.refreshes() == before || watching.refreshes_in_flight() > 0 {
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            Instant::now()
        });
        let asked = connections.iter_mut().map(async |connection| {
            together.wait().await;
            let answer: Value = serde_json::from_slice(connection.expect_200(&request).await?)?;
            anyhow::Ok((Instant::now(), answer["generation"].as_i64()))
        });
        let answers = try_join_all(asked).await?;
        let answered = answers.iter().map(|(at, _)| *at).max();
        let generations: HashSet<Option<i64>> = answers.iter().map(|(_, generation)| *generation).collect();
        ensure!(generations.len() == 1, "not everybody was handed the same: {generations:?}");
        let returned = returned.await?;
        let wait = answered.map_or(Duration::ZERO, |last| last.saturating_duration_since(returned));
        Ok((world.simulator.refreshes() - before, wait))
    }
}

/// As if it had been obtained yesterday, and might be rotated.
async fn stale(url: &str) -> anyhow::Result<()> {
    run(
        url,
        "update chains set refreshed_at = refreshed_at - interval '1 day', expires_at = expires_at - interval '1 day';
              update tokens set rotatable_at = 'epoch'",
    )
    .await
}

/// R9 and R10.
pub async fn one_token(world: &World) -> anyhow::Result<Measured> {
    let replicas = Replicas::start(world).await?;
    let (mut calls, mut waits) = (Vec::new(), Vec::new());
    for (jfrog, few, many) in TRIALS {
        world.jfrog_takes(Duration::from_millis(jfrog));
        if world.short && jfrog > 200 {
            continue;
        }
        for (callers, trials) in [(500, few), (5_000, many)] {
            if world.short && callers > 500 {
                continue;
            }
            for count in [1, 3] {
                for _ in 0..if world.short { 1 } else { trials } {
                    let (called, wait) = replicas.stampede(world, callers, count).await?;
                    calls.push(called as f64);
                    if callers == 500 && jfrog == 20 && count == 1 {
                        waits.push(wait.as_secs_f64() * 1e3);
                    }
                }
            }
        }
    }
    let tried = if world.short { "500 callers, JFrog 0 to 200 ms" } else { "500 and 5,000 callers, JFrog 0 to 2,000 ms" };
    let exact = calls.iter().filter(|calls| **calls == 1.0).count();
    let worst = Figure { median: Figure::of(&calls).highest, ..Figure::of(&calls) };
    let rows = vec![
        Row {
            id: "R9",
            what: "calls JFrog sees for one stale token (the most of all trials)",
            bounds: at_most(1.0, 1.0),
            figure: worst,
            detail: format!("{tried}, 1 and 3 replicas: exactly 1 in {exact} of {}", calls.len()),
        },
        Row {
            id: "R10",
            what: "last of 500 answered after JFrog returned, JFrog 20 ms (ms)",
            bounds: at_most(100.0, 30.0),
            figure: Figure::of(&waits),
            detail: format!("{} trials", waits.len()),
        },
    ];
    Ok(Measured { rows, missing: Vec::new() })
}

/// R11.
pub async fn many_tokens(world: &World) -> anyhow::Result<Measured> {
    let tokens = if world.short { 200 } else { 1_000 };
    world.jfrog_takes(Duration::ZERO);
    let service = Service::start(world, &world.database().await?).await?;
    let (admin, ci) = service.platform().await?.team("bench").await?;
    admin.register(world, tokens).await?;
    let thinking = Duration::from_millis(200);
    let at_once = async |jfrog: Duration| {
        world.jfrog_takes(jfrog);
        stale(&service.url).await?;
        let mut connections = Vec::with_capacity(tokens);
        for _ in 0..tokens {
            connections.push(Connection::open(service.address).await?);
        }
        let began = Instant::now();
        let asked = connections
            .iter_mut()
            .enumerate()
            .map(async |(number, connection)| connection.expect_200(&ci.refresh(number, r#"{"wait":60}"#)).await.map(drop));
        try_join_all(asked).await?;
        anyhow::Ok(began.elapsed())
    };
    // What there is to do takes as long as without JFrog; its thinking is waited for once.
    let ideal = async || Ok((at_once(Duration::ZERO).await? + thinking).as_secs_f64() * 1e3);
    let compared = in_turn(world.rounds(), ideal, async || Ok(at_once(thinking).await?.as_secs_f64() * 1e3)).await?;
    Ok(Row {
        id: "R11",
        what: "distinct tokens refreshed at once, JFrog 200 ms, 10 connections: ideal / took",
        bounds: at_least(0.80, 0.95),
        figure: compared.ratio(),
        detail: format!("{tokens} tokens, {}", compared.told("ms")),
    }
    .into())
}
