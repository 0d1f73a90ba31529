//! Connections that say nothing, or not enough, are closed, and hurt nobody.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::app::{Client, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_silent_or_slow_connections_are_closed_and_the_others_are_served() {
    let app = TestApp::start().await;
    let address = app.ci.base().trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for number in 0..500 {
        let mut connection = TcpStream::connect(&address).await.expect("connects");
        let said: &[u8] = [&b""[..], b"GET /whoami HTTP/1.1\r\nhost: x\r\n", b"PRI * HTTP/2"][number % 3];
        connection.write_all(said).await.expect("writes");
        slow.push(connection);
    }
    app.ci.get("/whoami").await.expect(200);
    for mut connection in slow {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(15), connection.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "it was not closed");
    }
    // A client of its own: the first one's idle connection is being closed in this very moment.
    Client::at(app.ci.base(), app.ci.key().to_owned()).get("/whoami").await.expect(200);
}
