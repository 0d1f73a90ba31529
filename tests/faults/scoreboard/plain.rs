//! One plain strategy on two hosts, through all rounds.

use std::{fs, time::Duration};

use reqwest::{Client, Response};
use token_broker::dev::simulator::{Fault, OldAccessToken, Route, Rule, Simulator};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    schedule::{Caller, Fate, Killed, Round, Store},
    strategies::{Home, Strategy},
};
use crate::app::any_port;

/// Whether the token was lost, round by round.
pub(super) async fn play<S: Strategy>(rounds: &[Round], old_access_token: OldAccessToken, http: &Client) -> Vec<bool> {
    let simulator = Simulator::start(any_port(), None).await.expect("the simulator starts");
    simulator.knobs(|knobs| knobs.old_access_token = old_access_token);
    let mut lost = Vec::new();
    for round in rounds {
        lost.push(loses::<S>(round, &simulator, http).await);
    }
    lost
}

async fn loses<S: Strategy>(round: &Round, simulator: &Simulator, http: &Client) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let jfrog = format!("{}/access/api/v1/tokens", simulator.url());
    let home = Home { file: dir.path().join("pair.json"), jfrog, http: http.clone() };
    let before = made_by_a_person(&home, simulator).await;
    fs::write(&home.file, &before).expect("writes");
    let hosts = [S::default(), S::default()];

    if let Some(fault) = &round.jfrog {
        simulator.fault(Rule::once(fault.clone(), Route::Refresh));
    }
    let refusing = (round.store == Store::Refuses).then(|| refuse_next_save(&home, simulator));
    let second = async {
        if let Some(delay) = round.second_after {
            sleep(delay).await;
            drop(hosts[1].refresh(&home, Caller::UNHARMED).await);
        }
    };
    let (first, ()) = tokio::join!(hosts[0].refresh(&home, round.caller), second);
    assert!(simulator.faults().is_empty(), "{}: JFrog did it", round.name);
    let killed = matches!(round.caller, Caller(Some((_, Fate::Killed))));
    assert_eq!(first.as_ref().is_err_and(|error| error.is::<Killed>()), killed, "{}", round.name);
    match round.store {
        Store::Saves => {}
        Store::Refuses => {
            assert!(first.is_err(), "the save failed");
            refusing.expect("it was begun").await.expect("it ended");
            fs::remove_dir(&home.file).expect("it is empty: nothing was saved");
            fs::rename(home.file.with_extension("aside"), &home.file).expect("moves back");
        }
        Store::Forgets => {
            assert!(first.is_ok(), "it was saved");
            fs::write(&home.file, before).expect("writes");
        }
    }
    !can_rotate(&home, &hosts, simulator).await
}

/// From now on there is a directory in the file's place when JFrog has answered: nobody writes over that, root included.
fn refuse_next_save(home: &Home, simulator: &Simulator) -> JoinHandle<()> {
    // JFrog has made the next pair, and is slow to say so.
    simulator.fault(Rule::once(Fault::DelayAfterCommit { ms: 1_000 }, Route::Refresh));
    let (file, simulator, made) = (home.file.clone(), simulator.clone(), simulator.tokens().len());
    tokio::spawn(async move {
        while simulator.tokens().len() == made {
            sleep(Duration::from_millis(10)).await;
        }
        fs::rename(&file, file.with_extension("aside")).expect("moves");
        fs::create_dir(&file).expect("makes a directory");
    })
}

/// The oracle: a refresh for real, by either host, in its own way. A lock that is left behind has time to expire.
async fn can_rotate<S: Strategy>(home: &Home, hosts: &[S; 2], simulator: &Simulator) -> bool {
    for host in hosts.iter().cycle().take(6) {
        let before = simulator.refreshes();
        let done = host.refresh(home, Caller::UNHARMED).await;
        let kept = home.read().is_ok_and(|pair| simulator.is_alive(&pair.access_token));
        if done.is_ok() && simulator.refreshes() > before && kept {
            return true;
        }
        sleep(Duration::from_millis(100)).await;
    }
    false
}

async fn made_by_a_person(home: &Home, simulator: &Simulator) -> String {
    let identity_token = simulator.add_user("someone", false);
    let request = home.http.post(&home.jfrog).bearer_auth(identity_token).form(&[("refreshable", "true")]);
    let answer = request.send().await.and_then(Response::error_for_status).expect("a pair");
    answer.text().await.expect("a body")
}
