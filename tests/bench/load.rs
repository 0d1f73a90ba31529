//! The load: a closed loop for throughput (each of `c` connections asks again as soon as it is answered), an open loop for latency
//! (a constant rate, whatever the answers do: a closed loop would wait out a stall and not see it).

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{task::LocalSet, time::sleep_until};

use crate::connection::Connection;

/// Connections of an open loop: more than are ever busy at half of saturation.
const OPEN_CONNECTIONS: usize = 64;
/// A measurement begins when everything has been used a little.
pub const WARM_UP: Duration = Duration::from_millis(300);

/// What a loop saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of each job, in the order in which they ended.
    pub latencies: Vec<Duration>,
    /// From the first to the last.
    pub took: Duration,
}

impl Seen {
    /// Jobs a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency that `share` of the jobs kept below, in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        percentile(&self.latencies, share)
    }

    /// The same of each of so many stretches, one after the other.
    pub fn percentiles(&self, share: f64, stretches: usize) -> Vec<f64> {
        let each = self.latencies.len().div_ceil(stretches).max(1);
        self.latencies.chunks(each).map(|some| percentile(some, share)).collect()
    }
}

fn percentile(latencies: &[Duration], share: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}

/// One thing to do: with this connection, for the how-manieth time over all connections.
pub trait Job: AsyncFn(&mut Connection, usize) -> anyhow::Result<()> + Clone + Send + 'static {}
impl<T: AsyncFn(&mut Connection, usize) -> anyhow::Result<()> + Clone + Send + 'static> Job for T {}

/// `connections` ask one after the other for `length`.
pub async fn closed(to: SocketAddr, connections: usize, length: Duration, job: impl Job) -> anyhow::Result<Seen> {
    on_one_thread(move || async move {
        let next = Rc::new(Cell::new(0));
        let (warm, end) = (Instant::now() + WARM_UP, Instant::now() + WARM_UP + length);
        let latencies = Rc::new(RefCell::new(Vec::with_capacity(1 << 16)));
        let mut callers = Vec::new();
        for _ in 0..connections {
            let (next, latencies, job) = (Rc::clone(&next), Rc::clone(&latencies), job.clone());
            callers.push(tokio::task::spawn_local(async move {
                let mut connection = Connection::open(to).await?;
                loop {
                    let began = Instant::now();
                    if began >= end {
                        return anyhow::Ok(());
                    }
                    job(&mut connection, next.replace(next.get() + 1)).await?;
                    let ended = Instant::now();
                    // Only what ended within the time counts for it.
                    if began >= warm && ended < end {
                        latencies.borrow_mut().push(ended - began);
                    }
                }
            }));
        }
        for caller in callers {
            caller.await??;
        }
        Ok(Seen { latencies: latencies.take(), took: length })
    })
    .await
}

/// `rate` jobs a second, each timed from when it should have begun.
pub async fn open(to: SocketAddr, rate: f64, length: Duration, job: impl Job) -> anyhow::Result<Seen> {
    on_one_thread(move || async move {
        let count = (rate * length.as_secs_f64()) as usize;
        let warm_up = (rate * WARM_UP.as_secs_f64()) as usize;
        let begin = Instant::now() + Duration::from_millis(50);
        let next = Rc::new(Cell::new(0));
        let latencies = Rc::new(RefCell::new(Vec::with_capacity(count)));
        let mut callers = Vec::new();
        for _ in 0..OPEN_CONNECTIONS {
            let (next, latencies, job) = (Rc::clone(&next), Rc::clone(&latencies), job.clone());
            callers.push(tokio::task::spawn_local(async move {
                let mut connection = Connection::open(to).await?;
                loop {
                    let number = next.replace(next.get() + 1);
                    if number >= count + warm_up {
                        return anyhow::Ok(());
                    }
                    let mut due = begin + Duration::from_secs_f64(number as f64 / rate);
                    if due > Instant::now() {
                        sleep_until(due.into()).await;
                        // The timer's own coarseness (a millisecond) is not the service's.
                        due = Instant::now();
                    }
                    job(&mut connection, number).await?;
                    if number >= warm_up {
                        latencies.borrow_mut().push(due.elapsed());
                    }
                }
            }));
        }
        for caller in callers {
            caller.await??;
        }
        Ok(Seen { latencies: latencies.take(), took: length })
    })
    .await
}

/// A runtime of its own on a thread of its own: no task moves between processors, and the simulator's work is not in between.
async fn on_one_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    let done = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, work())
    });
    done.await?
}
