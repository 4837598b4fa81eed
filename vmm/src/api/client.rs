//! The other side of a VM's API.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// How long a VM may take to answer: longer than anything it waits for itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a VM was not asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("Nobody answers at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("The VM at {} ended while it was asked", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: hyper::Error,
    },
    /// No answer came.
    #[error("The VM at {} has not answered for {} s", .0.display(), .1.as_secs())]
    Silent(PathBuf, Duration),
    /// It says why not.
    #[error("{0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("The answer of {} is not that of a VM of this version", .0.display())]
    Malformed(PathBuf),
}

/// Asks one VM, a connection a request.
#[derive(Debug, Clone)]
pub struct Client(PathBuf, Duration);

impl Client {
    /// Of the VM whose API listens at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self(socket.into(), PATIENCE)
    }

    /// Waits no longer than this for an answer, in place of 30 s.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> Self {
        Self(self.0, patience)
    }

    /// Reads something: `get("outboard.info")`.
    ///
    /// # Errors
    /// The VM is not there, says no, or answers something else.
    pub fn get<T: DeserializeOwned>(&self, what: &str) -> Result<T, ClientError> {
        let answer = self.call(Method::GET, what, Bytes::new())?;
        serde_json::from_slice(&answer).map_err(|_| ClientError::Malformed(self.0.clone()))
    }

    /// Has something done: `put("vm.pause", &())`. The answer's body, which may be empty.
    ///
    /// # Errors
    /// The VM is not there, or says no.
    pub fn put(&self, what: &str, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body).map_err(|_| ClientError::Malformed(self.0.clone()))?;
        // CH's requests without a body have none.
        let body = if body == b"null" { Vec::new() } else { body };
        self.call(Method::PUT, what, body.into())
    }

    fn call(&self, method: Method, what: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let system = |source| ClientError::Connect {
            path: self.0.clone(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system)?;
        runtime.block_on(async {
            tokio::time::timeout(self.1, self.exchange(method, what, body))
                .await
                .unwrap_or_else(|_| Err(ClientError::Silent(self.0.clone(), self.1)))
        })
    }

    async fn exchange(
        &self,
        method: Method,
        what: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.0).await;
        let stream = stream.map_err(|source| ClientError::Connect {
            path: self.0.clone(),
            source,
        })?;
        let broken = |source| ClientError::Broken {
            path: self.0.clone(),
            source,
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{what}"))
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .body(Full::new(body))
            .map_err(|_| ClientError::Malformed(self.0.clone()))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(broken)?;
        connection.abort();
        refused(status, body.to_bytes())
    }
}

/// The answer, or what it says of why not.
fn refused(status: StatusCode, body: Bytes) -> Result<Bytes, ClientError> {
    if status.is_success() {
        return Ok(body);
    }
    let text = match serde_json::from_slice::<Vec<String>>(&body) {
        Ok(causes) => causes.join(": "),
        Err(_) => format!("{status}: {}", String::from_utf8_lossy(&body)),
    };
    Err(ClientError::Refused(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_answer_is_given_up_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let _deaf = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let client = Client::new(&socket).patient_for(Duration::from_millis(50));
        let answer = client.get::<u32>("outboard.info");
        assert!(matches!(answer, Err(ClientError::Silent(..))), "{answer:?}");
    }
}
