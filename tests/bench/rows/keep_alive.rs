//! Keeping alive what nobody asks for: how the scan grows, R14, and ten thousand tokens due at once, R15.

use std::time::{Duration, Instant};

use token_broker::store::{Lane, Store};

use crate::{
    load::{closed, open},
    measure::{Figure, in_turn, short},
    rows::{Measured, hand_out::HandingOut},
    table::{Row, at_most},
    world::{World, count, run},
};

const JFROG: Duration = Duration::from_millis(100);
/// Calls of one instance's that may be under way.
const IN_FLIGHT: f64 = 32.0;

/// R14.
pub async fn scan(world: &World) -> anyhow::Result<Measured> {
    let most = if world.short { 100_000 } else { 1_000_000 };
    let (many, few) = (scheduled(world, most).await?, scheduled(world, 10_000).await?);
    let scans = if world.short { 100 } else { 500 };
    let scan = async |store: &Store| {
        let began = Instant::now();
        for _ in 0..scans {
            let due = store.take_jobs(Lane::Tokens, 16, Duration::from_secs(90)).await?;
            anyhow::ensure!(due.is_empty(), "nothing is due");
        }
        anyhow::Ok(began.elapsed().as_secs_f64() * 1e3 / f64::from(scans))
    };
    let compared = in_turn(world.rounds(), async || scan(&many).await, async || scan(&few).await).await?;
    many.close().await;
    few.close().await;
    Ok(Row {
        id: "R14",
        what: "scan for due tokens with nothing due, 1,000,000 (short: 100,000) / 10,000",
        bounds: at_most(1.2, 1.0),
        figure: compared.ratio(),
        detail: format!("{most} tokens; {}", compared.told("ms")),
    }
    .into())
}

/// A database in which so many tokens are to be looked at within the year: all that a scan reads.
async fn scheduled(world: &World, tokens: usize) -> anyhow::Result<Store> {
    let url = world.database().await?;
    let sql = format!(
        "insert into jobs (kind, subject, due_at) select 'keep-alive', gen_random_uuid(), now() + random() * interval '1 year' + interval '1 hour'
         from generate_series(1, {tokens});"
    );
    run(&url, sql).await?;
    run(&url, "vacuum analyze jobs").await?;
    Ok(Store::connect(url.parse()?, 2).await?)
}

/// R15.
pub async fn all_at_once(world: &World) -> anyhow::Result<Measured> {
    let tokens: usize = if world.short { 320 } else { 10_000 };
    world.jfrog_takes(Duration::ZERO);
    let broker = HandingOut::start_with(world, tokens).await?;
    let (url, to, job) = (&broker.service.url, broker.service.address, broker.job());
    let rate = closed(to, 32, world.length(), job.clone()).await?.rate() / 4.0;
    let idle = open(to, rate, Duration::from_secs(if world.short { 2 } else { 10 }), job.clone()).await?;
    // Tokens are due at once only once: its rounds are stretches of it.
    let idle = Figure::of(&idle.percentiles(0.99, world.rounds())).median;
    world.jfrog_takes(JFROG);
    let began = Instant::now();
    // Half of every older chain's life has passed.
    run(
        url,
        "update chains set refreshed_at = now() - interval '300 d', expires_at = now() + interval '65 d' where letter = 'a';
              update tokens set rotatable_at = 'epoch'; update jobs set due_at = now() where kind = 'keep-alive'",
    )
    .await?;
    let ideal = Duration::from_secs_f64(tokens as f64 / IN_FLIGHT * JFROG.as_secs_f64());
    let meanwhile = tokio::spawn({
        let (job, length) = (job.clone(), ideal.max(Duration::from_secs(1)));
        async move { open(to, rate, length, job).await }
    });
    // Counting them costs more than keeping one alive: not before all of them can be done.
    tokio::time::sleep(ideal).await;
    let left = "select count(*) from chains where letter = 'a' and generation < 2";
    while count(url, left).await? > 0 {
        anyhow::ensure!(
            began.elapsed() < ideal * 5 + Duration::from_secs(10),
            "{} tokens are left after {:?}",
            count(url, left).await?,
            began.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    let busy = meanwhile.await??.percentiles(0.99, world.rounds());
    let row = |what, bounds, figure, detail| Row { id: "R15", what, bounds, figure, detail };
    let rows = vec![
        row(
            "tokens due at once, JFrog 100 ms, 32 in flight: wall time / ideal",
            at_most(1.3, 1.06),
            Figure::of(&[took.as_secs_f64() / ideal.as_secs_f64()]),
            format!("{tokens} tokens, {} against {} s", short(took.as_secs_f64()), short(ideal.as_secs_f64())),
        ),
        row(
            "p99 of hand-outs meanwhile / when idle, open loop",
            at_most(1.5, 1.1),
            Figure::of(&busy.iter().map(|busy| busy / idle).collect::<Vec<_>>()),
            format!("{} against {} ms at {} requests/s", short(Figure::of(&busy).median), short(idle), short(rate)),
        ),
    ];
    Ok(Measured { rows, missing: Vec::new() })
}
