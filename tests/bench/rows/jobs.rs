//! A CI job with nothing but its identity: R3 and R5 against OpenBao as it is recommended, R4 against OpenBao on the same Postgres.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use crate::{
    connection::{Connection, request},
    issuer::Issuer,
    load::{Job, closed, open},
    measure::{Compared, in_turn, short},
    peers::{OpenBao, Storage},
    rows::Measured,
    service::Service,
    table::{Missing, Row, at_least, at_most},
    world::World,
};

const CALLERS: usize = 8;

/// The service, with a rule for the issuer's jobs.
struct Broker {
    service: Service,
    requests: Arc<[Vec<u8>]>,
}

impl Broker {
    async fn start(world: &World, issuer: &Issuer, jobs: &[String]) -> anyhow::Result<Self> {
        let trusted = [("TOKEN_BROKER_OIDC_ISSUERS", issuer.url.as_str())];
        let service = Service::start_with(world, &world.database().await?, world.place("journal")?, &trusted).await?;
        let (admin, _) = service.platform().await?.team("bench").await?;
        admin.register(world, 1).await?;
        let rule = json!({"name": "jobs", "issuer": issuer.url, "claims": {"sub": "job:*", "project": "bench"}, "role": "ci"});
        admin.post("/teams/bench/trust-rules", rule).await?;
        let requests = jobs.iter().map(|jwt| request("POST", "/tokens/t0/refresh", jwt, "", "")).collect();
        Ok(Self { service, requests })
    }

    fn job(&self) -> impl Job {
        let requests = Arc::clone(&self.requests);
        async move |connection: &mut Connection, number: usize| {
            connection.expect_200(&requests[number % requests.len()]).await?;
            Ok(())
        }
    }
}

/// R3, R4, R5.
pub async fn against_openbao(world: &World) -> anyhow::Result<Measured> {
    let issuer = Issuer::start().await?;
    // More than are asked with in the half second for which a verified one is remembered.
    let jobs = issuer.jobs(if world.short { 3_000 } else { 12_000 }).await?;
    let broker = Broker::start(world, &issuer, &jobs).await?;
    let mut measured = Measured::default();
    match OpenBao::start(world, &Storage::Raft).await {
        Err(why) => measured.missing.extend(["R3", "R5"].map(|id| Missing { id, why: format!("{why:#}") })),
        Ok(bao) => {
            bao.set_up(&issuer).await?;
            let (ours, theirs) = (broker.job(), OpenBao::job(&jobs));
            let compared = rates(world, (broker.service.address, &ours), (bao.address, &theirs)).await?;
            let saturations = (median(&compared.a), median(&compared.b));
            measured.rows.push(Row {
                id: "R3",
                what: "jobs with a JWT of their own / OpenBao on raft: login + read, c = 8",
                bounds: at_least(2.5, 6.0),
                figure: compared.ratio(),
                detail: compared.told("jobs/s"),
            });
            let length = world.length() * 2;
            let a = async || Ok(open(broker.service.address, saturations.0 / 2.0, length, ours.clone()).await?.percentile(0.99));
            let b = async || Ok(open(bao.address, saturations.1 / 2.0, length, theirs.clone()).await?.percentile(0.99));
            let tails = in_turn(world.rounds(), a, b).await?;
            let rates = (short(saturations.0 / 2.0), short(saturations.1 / 2.0));
            measured.rows.push(Row {
                id: "R5",
                what: "p99 of these, open loop, each at half of its own saturation",
                bounds: at_most(0.33, 0.15),
                figure: tails.ratio(),
                detail: format!("{} at {} and {} jobs/s", tails.told("ms"), rates.0, rates.1),
            });
        }
    }
    if world.short {
        let why = "another OpenBao takes its time to start: not in the short mode".to_owned();
        measured.missing.push(Missing { id: "R4", why });
        return Ok(measured);
    }
    match OpenBao::start(world, &Storage::Postgres).await {
        Err(why) => measured.missing.push(Missing { id: "R4", why: format!("{why:#}") }),
        Ok(bao) => {
            bao.set_up(&issuer).await?;
            let compared = rates(world, (broker.service.address, &broker.job()), (bao.address, &OpenBao::job(&jobs))).await?;
            measured.rows.push(Row {
                id: "R4",
                what: "jobs with a JWT of their own / OpenBao on the same Postgres, c = 8",
                bounds: at_least(10.0, 25.0),
                figure: compared.ratio(),
                detail: compared.told("jobs/s"),
            });
        }
    }
    Ok(measured)
}

async fn rates<A: Job, B: Job>(
    world: &World,
    (ours, job): (std::net::SocketAddr, &A),
    (theirs, their_job): (std::net::SocketAddr, &B),
) -> anyhow::Result<Compared> {
    let length = world.length().max(Duration::from_secs(1));
    let a = async || Ok(closed(ours, CALLERS, length, job.clone()).await?.rate());
    let b = async || Ok(closed(theirs, CALLERS, length, their_job.clone()).await?.rate());
    in_turn(world.rounds(), a, b).await
}

fn median(values: &[f64]) -> f64 {
    crate::measure::Figure::of(values).median
}
