//! One statement for all who come while another runs: each waits for its own row, and all commit together.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Result, StoreError};

/// Asks that one statement serves, at most.
const TOGETHER: usize = 64;

/// Statements of one team at a time: while one waits for the disk, the next is at work.
const AT_A_TIME: usize = 2;

/// So many must wait before a second statement is worth its while: what a statement costs, it costs for one as for many.
const WORTH_ANOTHER: usize = 8;

/// Postgres itself ends a statement before that.
const LONGEST: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 17_000 });

type Queue<A, R> = VecDeque<(A, Answer<R>)>;

/// Where somebody waits for an answer.
type Answer<R> = oneshot::Sender<Result<R>>;

/// What is asked of Postgres, by team: row-level security lets a statement see one.
#[derive(Debug)]
pub(super) struct Gather<A, R> {
    teams: Arc<Mutex<HashMap<Uuid, Waiting<A, R>>>>,
    linger: Duration,
}

#[derive(Debug)]
struct Waiting<A, R> {
    asks: Queue<A, R>,
    statements: usize,
}

impl<A, R> Waiting<A, R> {
    fn has_room(&self) -> bool {
        self.statements == 0 || self.statements < AT_A_TIME && self.asks.len() >= WORTH_ANOTHER
    }
}

impl<A, R> Clone for Gather<A, R> {
    fn clone(&self) -> Self {
        Self { teams: Arc::clone(&self.teams), linger: self.linger }
    }
}

impl<A, R> Default for Gather<A, R> {
    fn default() -> Self {
        Self::lingering(Duration::ZERO)
    }
}

impl<A, R> Gather<A, R> {
    /// For those who are in no hurry: before each statement it waits so long for more of them.
    pub(super) fn lingering(linger: Duration) -> Self {
        Self { teams: Arc::default(), linger }
    }

    /// Whether it is one of these.
    pub(super) fn lingers(&self) -> bool {
        !self.linger.is_zero()
    }
}

impl<A: Clone + Send + 'static, R: Send + 'static> Gather<A, R> {
    /// The answer to one ask. `statement` answers many, each at its place; it runs in a task of its own, which no caller cancels.
    ///
    /// # Errors
    /// The statement's. What Postgres refused as a whole, maybe for the sake of one, is asked again for each alone.
    pub(super) async fn ask<F>(&self, team: Uuid, ask: A, statement: impl Fn(Vec<A>) -> F + Send + 'static) -> Result<R>
    where
        F: Future<Output = Result<Vec<R>>> + Send,
    {
        let (sender, answer) = oneshot::channel();
        let turn = {
            let mut teams = lock(&self.teams);
            let waiting = teams.entry(team).or_insert_with(|| Waiting { asks: Queue::new(), statements: 0 });
            waiting.asks.push_back((ask, sender));
            waiting.has_room().then(|| {
                waiting.statements += 1;
                Turn { gather: self.clone(), team, over: false }
            })
        };
        if let Some(mut turn) = turn {
            tokio::spawn(async move {
                while let Some((asks, senders)) = turn.next().await {
                    match in_time(statement(asks.clone())).await {
                        Ok(answers) => tell(senders.into_iter().zip(answers.into_iter().map(Ok))),
                        Err(error) if asks.len() > 1 && error.was_undone() => {
                            let mut all = asks.into_iter().zip(senders);
                            while let Some((ask, sender)) = all.next() {
                                let alone = in_time(statement(vec![ask])).await;
                                let away = alone.as_ref().err().filter(|error| !error.was_undone()).map(StoreError::told_again);
                                tell([(sender, alone.and_then(|mut answer| answer.pop().ok_or_else(no_answer)))]);
                                if let Some(error) = away {
                                    // Postgres has gone away: nobody else waits for it in turn.
                                    tell(all.by_ref().map(|(_, sender)| (sender, Err(error.told_again()))));
                                }
                            }
                        }
                        Err(error) => tell(senders.into_iter().map(|sender| (sender, Err(error.told_again())))),
                    }
                }
            });
        }
        answer.await.unwrap_or_else(|_| Err(no_answer()))
    }
}

/// A server that went away without a word keeps nobody's turn.
async fn in_time<T>(statement: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(LONGEST, statement).await;
    done.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
}

/// Who waits no longer needs no answer.
fn tell<R>(answers: impl IntoIterator<Item = (Answer<R>, Result<R>)>) {
    answers.into_iter().for_each(|(sender, answer)| drop(sender.send(answer)));
}

fn no_answer() -> StoreError {
    StoreError::Unavailable(sqlx::Error::WorkerCrashed)
}

/// One of a team's statements at a time, until nobody waits.
struct Turn<A, R> {
    gather: Gather<A, R>,
    team: Uuid,
    over: bool,
}

impl<A, R> Turn<A, R> {
    async fn next(&mut self) -> Option<(Vec<A>, Vec<Answer<R>>)> {
        if self.gather.lingers() {
            tokio::time::sleep(self.gather.linger).await;
        }
        let mut teams = lock(&self.gather.teams);
        let asks = teams.get_mut(&self.team).map(|waiting| {
            let some = waiting.asks.len().min(TOGETHER);
            waiting.asks.drain(..some).unzip()
        });
        let asks = asks.filter(|(asks, _): &(Vec<A>, _)| !asks.is_empty());
        // Under the same lock: who asks from now on takes a turn anew.
        if asks.is_none() {
            self.over = true;
            leave(&mut teams, self.team);
        }
        asks
    }
}

impl<A, R> Drop for Turn<A, R> {
    /// A statement that panicked: whoever waits for nobody is told so by the end of its channel.
    fn drop(&mut self) {
        if !self.over {
            leave(&mut lock(&self.gather.teams), self.team);
        }
    }
}

fn leave<A, R>(teams: &mut HashMap<Uuid, Waiting<A, R>>, team: Uuid) {
    if let Some(waiting) = teams.get_mut(&team) {
        waiting.statements -= 1;
        if waiting.statements == 0 {
            teams.remove(&team);
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn who_comes_meanwhile_shares_a_statement_and_gets_its_own_answer() {
        let (gather, statements) = (Gather::default(), Arc::new(AtomicUsize::new(0)));
        let double = |statements: &Arc<AtomicUsize>| {
            let statements = Arc::clone(statements);
            move |asks: Vec<usize>| {
                statements.fetch_add(1, Ordering::Relaxed);
                async move {
                    tokio::task::yield_now().await;
                    Ok(asks.into_iter().map(|ask| ask * 2).collect())
                }
            }
        };
        let asks = (0..1000).map(|ask| gather.ask(Uuid::nil(), ask, double(&statements)));
        let answers: Vec<usize> = join_all(asks).await.into_iter().map(|answer| answer.expect("answered")).collect();
        assert_eq!(answers, (0..1000).map(|ask| ask * 2).collect::<Vec<_>>());
        assert!((1000 / TOGETHER..100).contains(&statements.load(Ordering::Relaxed)), "{statements:?}");
        assert!(lock(&gather.teams).is_empty(), "nothing is kept of a team that is quiet");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_in_no_hurry_waits_for_others_and_for_no_longer() {
        let gather = Gather::lingering(Duration::from_millis(10));
        let together = |asks: Vec<u64>| async move { Ok(vec![asks.len(); asks.len()]) };
        let asks = [0, 4, 9, 15].map(async |after| {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let answer = gather.ask(Uuid::nil(), after, together).await.expect("answered");
            (answer, tokio::time::Instant::now())
        });
        let began = tokio::time::Instant::now();
        let answers = join_all(asks).await.into_iter().map(|(together, at)| (together, (at - began).as_millis()));
        assert_eq!(answers.collect::<Vec<_>>(), [(3, 10), (3, 10), (3, 10), (1, 20)]);
        tokio::time::sleep(Duration::from_millis(11)).await;
        assert!(lock(&gather.teams).is_empty(), "nothing is kept of a team that is quiet");
    }

    #[tokio::test]
    async fn what_is_refused_for_the_sake_of_one_is_done_for_the_others() {
        let gather = Gather::default();
        let statement = |asks: Vec<usize>| async move {
            tokio::task::yield_now().await;
            if asks.contains(&7) { Err(StoreError::Taken("seven".to_owned())) } else { Ok(asks) }
        };
        let answers = join_all((0..10).map(|ask| gather.ask(Uuid::nil(), ask, statement))).await;
        for (ask, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(answer) => assert_eq!((answer, ask == 7), (ask, false)),
                Err(error) => assert!(ask == 7 && matches!(error, StoreError::Taken(_)), "{ask}: {error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_statement_that_never_ends_keeps_the_next_one_for_no_longer_than_it_may_take() {
        let gather = Gather::default();
        let silent = |_: Vec<()>| std::future::pending::<Result<Vec<()>>>();
        let first = gather.ask(Uuid::nil(), (), silent);
        let (first, second) = tokio::join!(first, tokio::time::timeout(LONGEST * 3, gather.ask(Uuid::nil(), (), silent)));
        assert!(matches!(first, Err(StoreError::Unavailable(_))));
        assert!(matches!(second, Ok(Err(StoreError::Unavailable(_)))));
        gather.ask(Uuid::nil(), (), |asks| async { Ok(asks) }).await.expect("asked anew");
    }

    #[tokio::test]
    async fn an_outage_and_a_panic_are_told_to_all_who_shared_them_and_block_nobody() {
        let gather = Gather::default();
        let away = |_: Vec<()>| async { Err::<Vec<()>, _>(StoreError::Unavailable(sqlx::Error::PoolTimedOut)) };
        for answer in join_all((0..10).map(|_| gather.ask(Uuid::nil(), (), away))).await {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))));
        }
        #[expect(unreachable_code, reason = "it panics before it answers")]
        let panics = |_: Vec<()>| async { Ok(panic!("on purpose")) };
        for answer in join_all((0..10).map(|_| gather.ask(Uuid::nil(), (), panics))).await {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))));
        }
        gather.ask(Uuid::nil(), (), |asks| async { Ok(asks) }).await.expect("asked anew");
    }
}
