//! One keep-alive connection of HTTP/1.1, as cheap as it can be: requests are bytes made beforehand, answers are looked at no closer
//! than their status and length. What the client costs is taken from what is measured: they share the processors.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, still in the connection's buffer.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    /// From the loopback address `127.0.0.1`, at a port that the kernel finds when it knows where to.
    pub async fn open(to: SocketAddr) -> anyhow::Result<Self> {
        Self::over(TcpSocket::new_v4()?, to).await
    }

    /// The same, and it is reset when it is dropped: thousands that linger for a minute each keep the kernel searching for ports.
    pub async fn open_for_once(to: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_zero_linger()?;
        Self::over(socket, to).await
    }

    async fn over(socket: TcpSocket, to: SocketAddr) -> anyhow::Result<Self> {
        let stream = socket.connect(to).await.with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and reads its whole answer.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            self.read_more().await?;
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head]).context("an answer's head")?;
        let status = text.get(9..12).and_then(|status| status.parse().ok()).context("a status")?;
        let Some(length) = content_length(text) else {
            return self.chunked(status, head).await;
        };
        while self.buffer.len() < head + length {
            self.read_more().await?;
        }
        Ok(Answer { status, body: &self.buffer[head..head + length] })
    }

    /// The same, and anything but 200 is an error that quotes the answer.
    pub async fn expect_200(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        let Answer { status, body } = self.call(request).await?;
        if status != 200 {
            bail!("answered {status}: {}", String::from_utf8_lossy(body));
        }
        Ok(body)
    }

    async fn chunked(&mut self, status: u16, head: usize) -> anyhow::Result<Answer<'_>> {
        let mut body = Vec::new();
        let mut at = head;
        loop {
            let Some(line) = self.buffer[at..].windows(2).position(|bytes| bytes == b"\r\n") else {
                self.read_more().await?;
                continue;
            };
            let size = std::str::from_utf8(&self.buffer[at..at + line])?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).context("a chunk's size")?;
            let begin = at + line + 2;
            while self.buffer.len() < begin + size + 2 {
                self.read_more().await?;
            }
            body.extend_from_slice(&self.buffer[begin..begin + size]);
            at = begin + size + 2;
            if size == 0 {
                break;
            }
        }
        self.buffer = body;
        Ok(Answer { status, body: &self.buffer })
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the connection was closed");
        }
        Ok(())
    }
}

fn content_length(head: &str) -> Option<usize> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?.1.trim().parse().ok()
}

/// A request as bytes. `more` are header lines, each with its end.
pub fn request(method: &str, path: &str, bearer: &str, more: &str, body: &str) -> Vec<u8> {
    let authorization = if bearer.is_empty() { String::new() } else { format!("Authorization: Bearer {bearer}\r\n") };
    let body =
        if body.is_empty() && method == "GET" { String::new() } else { format!("Content-Length: {}\r\n\r\n{body}", body.len()) };
    let end = if body.is_empty() { "\r\n" } else { "" };
    format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{authorization}{more}{end}{body}").into_bytes()
}
