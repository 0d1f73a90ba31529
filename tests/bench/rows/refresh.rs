//! A refresh that goes to JFrog: what it adds to the call itself, R6 and R7, and how many there can be, R8.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;

use crate::{
    connection::{Connection, request},
    floors::{Script, TEAM},
    load::{Job, closed, open},
    measure::{Compared, Figure, in_turn, short},
    rows::Measured,
    service::Service,
    table::{Row, at_least, at_most},
    world::World,
};

/// More than are ever in flight: no two callers ask for the same.
const TOKENS: usize = 128;
const JFROG: Duration = Duration::from_millis(20);

/// What no two callers may have at once.
struct Pool<T>(Mutex<VecDeque<T>>);

impl<T> Pool<T> {
    fn of(things: impl IntoIterator<Item = T>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(things.into_iter().collect())))
    }

    fn take(&self) -> anyhow::Result<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().context("more callers than there are tokens")
    }

    fn give_back(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(thing);
    }
}

/// A service with tokens that are refreshed by force.
pub struct Refreshing {
    service: Service,
    requests: Arc<Pool<Arc<[u8]>>>,
}

impl Refreshing {
    async fn start(world: &World) -> anyhow::Result<Self> {
        world.jfrog_takes(Duration::ZERO);
        let service = Service::start(world, &world.database().await?).await?;
        let (admin, _) = service.platform().await?.team("bench").await?;
        admin.register(world, TOKENS).await?;
        let forced = (0..TOKENS).map(|number| admin.refresh(number, r#"{"max_age":0}"#).into());
        Ok(Self { service, requests: Pool::of(forced) })
    }

    fn job(&self) -> impl Job {
        let requests = Arc::clone(&self.requests);
        async move |connection: &mut Connection, _| {
            let request = requests.take()?;
            let body = connection.expect_200(&request).await?;
            anyhow::ensure!(body.windows(16).any(|bytes| bytes == br#""refreshed":true"#), "a token was not refreshed");
            requests.give_back(request);
            Ok(())
        }
    }
}

/// The same call, made straight to JFrog: on a connection of its own, as the service makes it.
struct Straight {
    to: SocketAddr,
    pairs: Arc<Pool<(String, String)>>,
}

impl Straight {
    async fn start(world: &World) -> anyhow::Result<Self> {
        let to = world.simulator.url().trim_start_matches("http://").parse()?;
        let mut connection = Connection::open(to).await?;
        let mut pairs = Vec::new();
        for number in 0..TOKENS {
            let person = world.simulator.add_user(&format!("straight-{number}"), false);
            let create = "grant_type=client_credentials&refreshable=true&description=straight";
            pairs.push(pair(connection.expect_200(&post_token(&person, create)).await?)?);
        }
        Ok(Self { to, pairs: Pool::of(pairs) })
    }

    fn job(&self) -> impl Job {
        let (to, pairs) = (self.to, Arc::clone(&self.pairs));
        async move |_: &mut Connection, _| {
            let (access, refresh) = pairs.take()?;
            let form = format!("grant_type=refresh_token&refresh_token={refresh}&include_reference_token=false");
            let mut connection = Connection::open(to).await?;
            pairs.give_back(pair(connection.expect_200(&post_token(&access, &form)).await?)?);
            Ok(())
        }
    }
}

fn post_token(bearer: &str, form: &str) -> Vec<u8> {
    request("POST", "/access/api/v1/tokens", bearer, "Content-Type: application/x-www-form-urlencoded\r\n", form)
}

fn pair(body: &[u8]) -> anyhow::Result<(String, String)> {
    let answer: Value = serde_json::from_slice(body)?;
    let field = |name: &str| answer[name].as_str().map(str::to_owned).context("a pair");
    Ok((field("access_token")?, field("refresh_token")?))
}

/// R6 and R7.
pub async fn added_latency(world: &World) -> anyhow::Result<Measured> {
    let (broker, straight) = (Refreshing::start(world).await?, Straight::start(world).await?);
    world.jfrog_takes(JFROG);
    let (to, job, direct) = (broker.service.address, broker.job(), straight.job());
    let (mut worst, mut told, mut saturation): (Option<Compared>, _, f64) = (None, String::new(), 0.0);
    for callers in [1, 8, 32] {
        let a = async || {
            let seen = closed(to, callers, world.length(), job.clone()).await?;
            saturation = seen.rate();
            Ok(seen.percentile(0.5))
        };
        let b = async || Ok(closed(straight.to, callers, world.length(), direct.clone()).await?.percentile(0.5));
        let compared = in_turn(world.rounds(), a, b).await?;
        told += &format!("c = {callers}: {}; ", compared.told("ms"));
        if worst.as_ref().is_none_or(|worst| worst.ratio().median < compared.ratio().median) {
            worst = Some(compared);
        }
    }
    // The same rate for both, half of what the broker reached with 32 callers.
    let rate = saturation / 2.0;
    let length = world.length() * 2;
    let a = async || Ok(open(to, rate, length, job.clone()).await?.percentile(0.99));
    let b = async || Ok(open(straight.to, rate, length, direct.clone()).await?.percentile(0.99));
    let tails = in_turn(world.rounds(), a, b).await?;
    let jfrog = JFROG.as_secs_f64() * 1e3;
    let added: Vec<f64> = tails.a.iter().zip(&tails.b).map(|(a, b)| (a - b) / jfrog).collect();
    let rows = vec![
        Row {
            id: "R6",
            what: "forced refresh, JFrog 20 ms, worst p50 of c = 1, 8, 32 / straight call",
            bounds: at_most(1.15, 1.06),
            figure: worst.context("three were measured")?.ratio(),
            detail: told,
        },
        Row {
            id: "R7",
            what: "its p99, open loop: milliseconds added / the 20 ms",
            bounds: at_most(0.40, 0.12),
            figure: Figure::of(&added),
            detail: format!("{} at {} refreshes/s", tails.told("ms"), short(rate)),
        },
    ];
    Ok(Measured { rows, missing: Vec::new() })
}

/// R8.
pub async fn throughput(world: &World) -> anyhow::Result<Measured> {
    let broker = Refreshing::start(world).await?;
    let floor = Script::new(world, 10_000, &two_commits()).await?;
    let job = broker.job();
    let a = async || Ok(closed(broker.service.address, 32, world.length(), job.clone()).await?.rate());
    let compared = in_turn(world.rounds(), a, async || floor.rate(32, world.length()).await).await?;
    Ok(Row {
        id: "R8",
        what: "refreshes, JFrog 0 ms, c = 32 / pgbench of the two commits",
        bounds: at_least(0.40, 0.70),
        figure: compared.ratio(),
        detail: compared.told("refreshes/s"),
    }
    .into())
}

/// The intent; then the pair, its registration, the intent's end and the audit row.
fn two_commits() -> String {
    format!(
        "insert into attempts (token_id, id, team_id, chain_id, kind, spent_generation, lease_until, replica, actor)
         select t.id, gen_random_uuid(), t.team_id, c.id, 'rotate', c.generation, now() + interval '90 s', gen_random_uuid(), 'bench'
         from tokens t join chains c on c.token_id = t.id
         where t.team_id = '{TEAM}' and t.name = 't' || :n and c.letter = 'a' on conflict do nothing;
         with held as (select id from tokens where team_id = '{TEAM}' and name = 't' || :n for no key update),
         moved as (
             update chains set generation = chains.generation + 1, access_token = decode(repeat(md5(:n::text), 50), 'hex'),
                    refresh_token = decode(repeat(md5(:n::text), 10), 'hex'), jfrog_token_id = gen_random_uuid()::text, fingerprint = md5(:n::text),
                    refreshed_at = now(), expires_at = now() + interval '1 year'
             from held where chains.token_id = held.id and letter = 'a' returning chains.*),
         named as (
             update tokens set generation = tokens.generation + 1, rotatable_at = now() + interval '6 h'
             from moved where tokens.id = moved.token_id returning tokens.id, tokens.name, tokens.generation),
         ended as (delete from attempts using moved where attempts.token_id = moved.token_id)
         insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, jfrog_token_id, fingerprint,
                                   generation, request_id, address, detail)
         select '{TEAM}', 'key floor/admin', '{{\"id\": \"0123456789abcdef\", \"name\": \"admin\", \"type\": \"api-key\"}}', 'chain.rotate', 'done',
                named.id, named.name, moved.jfrog_token_id, moved.fingerprint, named.generation, gen_random_uuid()::text, '127.0.0.1',
                '{{\"chain\": \"a\"}}'
         from named, moved;\n"
    )
}
