//! The socket, and the door through which a connection can leave without an answer.

use super::answers::Dropped;
use super::flow::Request;
use super::{Simulator, control};
use anyhow::Context;
use axum::ServiceExt;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{self, HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use tokio::net::TcpSocket;
use tower::util::MapResult;

pub(super) type Handle = axum_server::Handle<SocketAddr>;

/// Connections that wait to be accepted: the service calls for a thousand tokens at once, and who finds no room tries again after a second.
const BACKLOG: u32 = 4096;

/// Binds at once; the future serves until the handle is shut down.
pub(super) fn bind(listen: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bound = || {
        let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        socket.listen(BACKLOG)?.into_std()
    };
    let listener = bound().with_context(|| format!("listening on {listen}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

pub(super) fn serve(
    simulator: Simulator,
    listener: TcpListener,
    handle: Handle,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>> + Send + 'static> {
    let routes = control::routes().fallback(call).with_state(simulator);
    let door = MapResult::new(routes, close_if_dropped);
    let door = ServiceExt::<http::Request<Body>>::into_make_service(door);
    let server = axum_server::from_tcp(listener)?.http1_only().handle(handle);
    Ok(server.serve(door))
}

/// A service that fails makes hyper close the connection with nothing written; no handler can ask for that.
fn close_if_dropped(answered: Result<Response, Infallible>) -> Result<Response, Dropped> {
    let Ok(response) = answered;
    match response.extensions().get::<Dropped>() {
        Some(dropped) => Err(dropped.clone()),
        None => Ok(response),
    }
}

async fn call(State(simulator): State<Simulator>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let request = Request::read(&method, &uri, &headers, &body);
    // A task of its own: axum drops this handler when its caller leaves.
    match tokio::spawn(async move { simulator.play(request).await }).await {
        Ok(answer) => answer.into_response(),
        Err(_) => super::answers::Answer::html(500, "Internal Server Error").into_response(),
    }
}
