//! A request, whole: its body, and the descriptors that came with it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::ch::none;
use super::connection::{FDS_MAX, Fds, Lost, Patience};
use crate::config::Handed;

/// As much as Cloud Hypervisor takes.
const BODY_MAX: usize = 4 << 20;

/// A request that is not carried out: a status, and why, the outermost reason first.
#[derive(Debug)]
pub(super) struct Failed(pub(super) StatusCode, pub(super) Vec<String>);

impl Failed {
    pub(super) fn bad(why: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, vec![why.into()])
    }
}

impl From<Lost> for Failed {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::TooMany => Self::bad(format!(
                "More than {FDS_MAX} descriptors came with the request"
            )),
            Lost::NoRoom => {
                let why = "The VMM may open no more files, and so cannot take the descriptors that came with \
                           the request; raise the limit on open files (ulimit -n)";
                Self(StatusCode::INTERNAL_SERVER_ERROR, vec![why.to_owned()])
            }
        }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// What came with a request. Dropped with it, when nobody has taken it.
#[derive(Clone)]
pub(super) struct Came(Arc<Mutex<(Bytes, Vec<Handed>)>>);

impl Came {
    fn take(&self) -> (Bytes, Vec<Handed>) {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads a request to its end, as long as there is patience. Only then all of its descriptors have come: the next handler has
/// them, and once it has answered those that it did not take are closed.
pub(super) async fn whole(
    Extension(fds): Extension<Fds>,
    Extension(Patience(patience)): Extension<Patience>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    let body = timeout(patience, Limited::new(body, BODY_MAX).collect()).await;
    let came = fds.take();
    let Ok(body) = body else {
        let why = "The body did not come to its end in time".to_owned();
        return Failed(StatusCode::REQUEST_TIMEOUT, vec![why]).into_response();
    };
    let Ok(body) = body else {
        return Failed::bad("The body cannot be read, or is longer than 4 MiB").into_response();
    };
    let came = match came {
        Ok(came) => came,
        Err(lost) => return Failed::from(lost).into_response(),
    };
    let came = came.into_iter().map(Handed::from).collect();
    let came = Came(Arc::new(Mutex::new((body.to_bytes(), came))));
    head.extensions.insert(came.clone());
    let response = next.run(Request::from_parts(head, Body::empty())).await;
    drop(came.take());
    response
}

/// A request's body, and its descriptors.
pub(super) struct Asked<T>(pub(super) T, pub(super) Vec<Handed>);

/// A request without either.
pub(super) struct Nothing;

fn take(request: &Request) -> (Bytes, Vec<Handed>) {
    let came = request.extensions().get::<Came>();
    came.map(Came::take).unwrap_or_default()
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Asked<T> {
    type Rejection = Failed;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failed> {
        let (body, fds) = take(&request);
        let mut from = serde_json::Deserializer::from_slice(&body);
        let read = serde_path_to_error::deserialize(&mut from);
        let read = read.map_err(|error| {
            let (path, why) = (error.path().to_string(), error.inner().to_string());
            Failed::bad(match path.as_str() {
                "." | "?" => why,
                path => format!("{path}: {why}"),
            })
        })?;
        from.end().map_err(|error| Failed::bad(error.to_string()))?;
        Ok(Self(read, fds))
    }
}

impl<S: Send + Sync> FromRequest<S> for Nothing {
    type Rejection = Failed;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failed> {
        let (body, fds) = take(&request);
        none(&fds).map_err(Failed::bad)?;
        if body.is_empty() {
            Ok(Self)
        } else {
            Err(Failed::bad("The request has a body, and takes none"))
        }
    }
}
