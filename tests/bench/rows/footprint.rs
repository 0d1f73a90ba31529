//! Memory and start: R12 and R13, against OpenBao.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use crate::{
    connection::{Connection, request},
    issuer::Issuer,
    measure::{Figure, in_turn, short},
    peers::{OpenBao, Storage},
    rows::Measured,
    service::{self, Service},
    table::{Row, at_most},
    world::{World, resident, run},
};

/// R12.
pub async fn memory(world: &World) -> anyhow::Result<Measured> {
    let issuer = Issuer::start().await?;
    let bao = OpenBao::start(world, &Storage::Raft).await?;
    if !world.short {
        bao.set_up(&issuer).await?;
        // What it used while it was set up is not its idling.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let theirs = resident(bao.process.pid())?;
    let service = Service::start(world, &world.database().await?).await?;
    let ours = || resident(service.process.pid());
    let (admin, ci) = service.platform().await?.team("bench").await?;
    let idle = ours()?;
    let tokens = if world.short { 200 } else { 10_000 };
    world.jfrog_takes(Duration::ZERO);
    admin.register(world, tokens).await?;
    let mut connection = Connection::open(service.address).await?;
    for number in 0..tokens {
        connection.expect_200(&ci.refresh(number, "")).await?;
    }
    let with_tokens = ours()?;
    let callers = if world.short { 500 } else { 5_000 };
    let (few, many) = (stampede(world, &service, &ci, 500).await?, stampede(world, &service, &ci, callers).await?);
    let all = [idle, few, with_tokens, many];
    let worst = all.iter().copied().fold(0.0, f64::max) / theirs;
    let told: Vec<String> = all.iter().map(|mib| short(*mib)).collect();
    Ok(Row {
        id: "R12",
        what: "resident memory, the most of idle, 500 callers, all tokens, all callers / OpenBao idle",
        bounds: at_most(0.25, 0.10),
        figure: Figure { median: worst, lowest: idle / theirs, highest: worst },
        detail: format!("{} MiB ({tokens} tokens, {callers} callers) against {} MiB", told.join(", "), short(theirs)),
    }
    .into())
}

/// What it takes while so many wait for one refresh, and is not given back after.
async fn stampede(world: &World, service: &Service, ci: &service::Api, callers: usize) -> anyhow::Result<f64> {
    run(
        &service.url,
        "update chains set refreshed_at = refreshed_at - interval '1 day'; update tokens set rotatable_at = 'epoch'",
    )
    .await?;
    world.jfrog_takes(Duration::from_millis(500));
    let mut connections = Vec::with_capacity(callers);
    for _ in 0..callers {
        connections.push(Connection::open(service.address).await?);
    }
    let asked = ci.refresh(0, "");
    try_join_all(connections.iter_mut().map(async |connection| connection.expect_200(&asked).await.map(drop))).await?;
    resident(service.process.pid())
}

/// R13.
pub async fn start_up(world: &World) -> anyhow::Result<Measured> {
    let url = world.database().await?;
    let journal = world.place("journal")?;
    {
        // A journal of a hundred pairs that Postgres may or may not have.
        let service = Service::start_with(world, &url, journal.clone(), &[]).await?;
        let (admin, _) = service.platform().await?.team("bench").await?;
        admin.register(world, 50).await?;
    }
    let empty = world.place("journal")?;
    std::fs::copy(journal.join("installation"), empty.join("installation"))?;
    let mut full = Vec::new();
    let mut none = Vec::new();
    let theirs = async || {
        let began = Instant::now();
        let bao = OpenBao::start(world, &Storage::Raft).await?;
        let took = began.elapsed();
        drop(bao);
        Ok(took.as_secs_f64() * 1e3)
    };
    let ours = async || {
        none.push(until_ready(world, &url, &empty).await?);
        for log in std::fs::read_dir(&journal)?.flatten().map(|file| file.path()) {
            // They are looked at once more, as after a crash.
            if log.extension().is_some_and(|end| end == "log") {
                let mut bytes = std::fs::read(&log)?;
                bytes.chunks_mut(4096).filter(|page| page.starts_with(b"TBJ1c")).for_each(|page| page[4] = b'p');
                std::fs::write(&log, bytes)?;
            }
        }
        full.push(until_ready(world, &url, &journal).await?);
        // The slower of the two is what is compared.
        Ok(none.last().copied().unwrap_or_default().max(full.last().copied().unwrap_or_default()))
    };
    let compared = in_turn(world.rounds(), ours, theirs).await?;
    let (none, full) = (short(Figure::of(&none).median), short(Figure::of(&full).median));
    Ok(Row {
        id: "R13",
        what: "start to ready, the slower of an empty and a 100-entry journal / OpenBao up",
        bounds: at_most(0.5, 0.15),
        figure: compared.ratio(),
        detail: format!("{none} ms empty, {full} ms with 100 entries; {}", compared.told("ms")),
    }
    .into())
}

/// From nothing to the first good answer of `/health/ready`, in milliseconds.
async fn until_ready(world: &World, url: &str, journal: &std::path::Path) -> anyhow::Result<f64> {
    let address: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = service::command(world, url, journal);
    command.env("TOKEN_BROKER_LISTEN", address.to_string()).stderr(std::process::Stdio::null());
    let began = Instant::now();
    let _process = crate::process::Process::launch(&mut command)?;
    loop {
        if let Ok(mut connection) = Connection::open(address).await
            && connection.call(&request("GET", "/health/ready", "", "", "")).await.is_ok_and(|answer| answer.status == 200)
        {
            return Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(30), "the service did not become ready");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
