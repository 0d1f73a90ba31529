//! A replica goes on with a rotation that another one began.

use std::time::{Duration, Instant};

use token_broker::{
    broker::{Keys, Resealed},
    crypto::{MasterKeys, Place},
    store::Store,
};
use uuid::Uuid;

use crate::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_seals_with_the_new_key_although_it_believed_in_the_old_one() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    let store = Store::connect(app.database.url().parse().expect("a URL"), 4).await.expect("connects");
    let open = async || {
        let master = MasterKeys::parse(&app.master_keys).expect("keys");
        Keys::open(master, &store, Duration::from_secs(600)).await.expect("opens")
    };
    let (one, other) = (open().await, open().await);
    let team: Uuid = app.database.text("select id::text from teams where name = 'payments'").await.parse().expect("an id");
    let place = Place { table: "chains", row: Uuid::nil(), column: "access_token", generation: 1 };
    other.seal(&store, team, place, "believes in it now").await.expect("seals");

    app.database.run("update teams set rotation_asked_at = now()").await;
    store.rotate_data_key(team, &one.new_data_key(team, "k1").await.expect("a key")).await.expect("rotates");
    assert_eq!(store.reseal_progress().await.expect("progress").rows_left, 2);
    let resealed = other.reseal(&store, team, Instant::now() + Duration::from_secs(30)).await.expect("reseals");
    assert!(matches!(resealed, Resealed::Waiting(_)), "{resealed:?}");
    assert_eq!(store.reseal_progress().await.expect("progress").rows_left, 0);
    store.close().await;
}
