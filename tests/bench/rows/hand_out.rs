//! Handing out a fresh token, its audit row on disk before the answer: R1, R2, and what two of its parts cost, R16, R17.

use std::{sync::Arc, time::Duration};

use crate::{
    connection::Connection,
    floors::{Hello, Script, TEAM},
    load::{Job, closed},
    measure::{Compared, Figure, in_turn, short},
    rows::Measured,
    service::{Api, Service},
    table::{Missing, Row, at_least, at_most},
    world::{World, count, run},
};

const CALLERS: usize = 32;
/// Registered tokens that are asked for in turn.
const TOKENS: usize = 8;

/// The least SQL that hands out: find the younger chain by the token's name, and write who was handed it.
fn least_sql() -> String {
    format!(
        "with found as (
             select t.id, t.name, t.generation, c.access_token, c.jfrog_token_id, c.fingerprint
             from tokens t join chains c on c.token_id = t.id
             where t.team_id = '{TEAM}' and t.name = 't' || :n and c.state = 'active' order by c.refreshed_at desc limit 1),
         audited as (
             insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, jfrog_token_id, fingerprint,
                                       generation, request_id, address)
             select '{TEAM}', 'key floor/ci', '{{\"id\": \"0123456789abcdef\", \"name\": \"ci\", \"type\": \"api-key\"}}', 'token.hand_out',
                    'done', id, name, jfrog_token_id, fingerprint, generation, gen_random_uuid()::text, '127.0.0.1'
             from found)
         select access_token from found;\n"
    )
}

/// A service with a team and fresh tokens.
pub struct HandingOut {
    pub service: Service,
    ci: Api,
}

impl HandingOut {
    async fn start(world: &World) -> anyhow::Result<Self> {
        Self::start_with(world, TOKENS).await
    }

    /// With so many tokens, of which the first few are asked for.
    pub async fn start_with(world: &World, tokens: usize) -> anyhow::Result<Self> {
        world.jfrog_takes(Duration::ZERO);
        let service = Service::start(world, &world.database().await?).await?;
        let (admin, ci) = service.platform().await?.team("bench").await?;
        admin.register(world, tokens).await?;
        Ok(Self { service, ci })
    }

    /// One refresh of a fresh token.
    pub fn job(&self) -> impl Job {
        let requests: Arc<[Vec<u8>]> = (0..TOKENS).map(|number| self.ci.refresh(number, "")).collect();
        async move |connection: &mut Connection, number: usize| {
            connection.expect_200(&requests[number % requests.len()]).await?;
            Ok(())
        }
    }

    async fn rate(&self, length: Duration) -> anyhow::Result<f64> {
        Ok(closed(self.service.address, CALLERS, length, self.job()).await?.rate())
    }
}

/// R1.
pub async fn against_hello(world: &World) -> anyhow::Result<Measured> {
    let (broker, hello) = (HandingOut::start(world).await?, Hello::start().await?);
    let greeting = broker.job();
    let a = async || broker.rate(world.length()).await;
    let b = async || Ok(closed(hello.address, CALLERS, world.length(), greeting.clone()).await?.rate());
    let compared = in_turn(world.rounds(), a, b).await?;
    Ok(Row {
        id: "R1",
        what: "hand-out of a fresh token / bare axum hello, c = 32",
        bounds: at_least(0.05, 0.10),
        figure: compared.ratio(),
        detail: compared.told("requests/s"),
    }
    .into())
}

/// R2.
pub async fn against_postgres(world: &World) -> anyhow::Result<Measured> {
    let broker = HandingOut::start(world).await?;
    let floor = Script::new(world, TOKENS, &least_sql()).await?;
    let a = async || broker.rate(world.length()).await;
    let compared = in_turn(world.rounds(), a, async || floor.rate(CALLERS, world.length()).await).await?;
    Ok(Row {
        id: "R2",
        what: "hand-out of a fresh token / pgbench: select + audit insert, c = 32",
        bounds: at_least(0.33, 0.70),
        figure: compared.ratio(),
        detail: compared.told("requests/s"),
    }
    .into())
}

/// R16. A job closes batches in the background; without it, an audit row is only inserted. What it costs is told for as many rows as were
/// written meanwhile: it may have closed more or fewer.
pub async fn closing_batches(world: &World) -> anyhow::Result<Measured> {
    let broker = HandingOut::start(world).await?;
    let url = &broker.service.url;
    if count(url, "select count(*) from jobs where kind = 'close-audit'").await? == 0 {
        let why = "this build has no job that closes audit batches".to_owned();
        return Ok(Measured { rows: Vec::new(), missing: vec![Missing { id: "R16", why }] });
    }
    let due = async |when: &str| run(url, format!("update jobs set due_at = {when} where kind = 'close-audit'")).await;
    let written = async || count(url, "select coalesce(max(id), 0) from audit_events").await;
    let closed = async || count(url, "select coalesce(max(last_id), 0) from audit_batches").await;
    let length = world.length() * 2;
    let plain = async || {
        // What the other half left is not this one's.
        while closed().await? < written().await? {
            due("least(due_at, now())").await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        due("now() + interval '1 day'").await?;
        broker.rate(length).await
    };
    let mut shares = Vec::new();
    let closing = async || {
        let (closed_before, written_before) = (closed().await?, written().await?);
        due("now()").await?;
        let rate = broker.rate(length).await?;
        shares.push((closed().await? - closed_before) as f64 / (written().await? - written_before) as f64);
        Ok(rate)
    };
    let compared = in_turn(world.rounds(), plain, closing).await?;
    let lost: Vec<f64> = shares.iter().zip(lost(&compared)).map(|(share, lost)| lost / share).collect();
    Ok(Row {
        id: "R16",
        what: "hand-outs lost to closing as many audit rows into the digest chain: plain / closing - 1",
        bounds: at_most(0.10, 0.03),
        figure: Figure::of(&lost),
        detail: format!("{}, {} closed for each one written", compared.told("requests/s"), short(Figure::of(&shares).median)),
    }
    .into())
}

/// R17.
pub async fn row_level_security(world: &World) -> anyhow::Result<Measured> {
    let (with, without) = (HandingOut::start(world).await?, HandingOut::start(world).await?);
    let disable = "do $$ declare t text; begin
                       for t in select tablename from pg_tables where schemaname = 'public' and rowsecurity loop
                           execute format('alter table %I no force row level security, disable row level security', t);
                       end loop; end $$";
    run(&without.service.url, disable).await?;
    let compared =
        in_turn(world.rounds(), async || without.rate(world.length()).await, async || with.rate(world.length()).await).await?;
    Ok(Row {
        id: "R17",
        what: "hand-outs lost to row-level security: without / with - 1",
        bounds: at_most(0.10, 0.03),
        figure: Figure::of(&lost(&compared)),
        detail: compared.told("requests/s"),
    }
    .into())
}

/// What the second of two costs, round by round.
fn lost(compared: &Compared) -> Vec<f64> {
    compared.a.iter().zip(&compared.b).map(|(plain, with)| plain / with - 1.0).collect()
}
