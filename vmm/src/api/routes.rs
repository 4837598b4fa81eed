//! Which request means what.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::config::NewDevice;
use crate::vm::{Control, Info, Plugged, Refusal};

/// The requests that a VM answers.
pub(super) fn router(control: Control) -> Router {
    let api = Router::new()
        .route("/vmm.ping", get(ping))
        .route("/vm.pause", put(pause))
        .route("/vm.resume", put(resume))
        .route("/vm.reboot", put(reboot))
        .route("/vm.power-button", put(power_button))
        .route("/vm.shutdown", put(destroy))
        .route("/vm.delete", put(destroy))
        .route("/vmm.shutdown", put(destroy))
        .route("/vm.remove-device", put(remove_device))
        .route("/outboard.info", get(info))
        .route("/outboard.add-device", put(add_device))
        .with_state(control);
    Router::new().nest("/api/v1", api)
}

/// Who answers.
#[derive(Serialize)]
struct Ping {
    version: &'static str,
    build_version: &'static str,
    pid: u32,
    features: [&'static str; 0],
}

async fn ping() -> Json<Ping> {
    let version = env!("CARGO_PKG_VERSION");
    Json(Ping {
        version,
        build_version: version,
        pid: std::process::id(),
        features: [],
    })
}

async fn info(State(vm): State<Control>) -> Result<Json<Info>, Refusal> {
    vm.info().await.map(Json)
}

async fn pause(State(vm): State<Control>) -> Result<StatusCode, Refusal> {
    vm.pause().await.map(done)
}

async fn resume(State(vm): State<Control>) -> Result<StatusCode, Refusal> {
    vm.resume().await.map(done)
}

async fn reboot(State(vm): State<Control>) -> Result<StatusCode, Refusal> {
    vm.reboot().await.map(done)
}

async fn power_button(State(vm): State<Control>) -> Result<StatusCode, Refusal> {
    vm.press_power_button().await.map(done)
}

async fn destroy(State(vm): State<Control>) -> Result<StatusCode, Refusal> {
    vm.destroy().await.map(done)
}

async fn add_device(
    State(vm): State<Control>,
    Json(device): Json<NewDevice>,
) -> Result<Json<Plugged>, Refusal> {
    vm.add(device).await.map(Json)
}

/// The body of `vm.remove-device`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    id: String,
}

async fn remove_device(
    State(vm): State<Control>,
    Json(Remove { id }): Json<Remove>,
) -> Result<StatusCode, Refusal> {
    vm.remove(&id).await.map(done)
}

fn done((): ()) -> StatusCode {
    StatusCode::NO_CONTENT
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotRunning(_) | Self::NotPaused(_) | Self::Busy { .. } => StatusCode::CONFLICT,
            Self::NoDevice { .. } => StatusCode::NOT_FOUND,
            Self::Description(_) => StatusCode::BAD_REQUEST,
            Self::Late(_) | Self::Connect(_) | Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Over => StatusCode::GONE,
        };
        let mut error = self.to_string();
        let mut cause = std::error::Error::source(&self);
        while let Some(next) = cause {
            error = format!("{error}: {next}");
            cause = next.source();
        }
        (status, Json(serde_json::json!({ "error": error }))).into_response()
    }
}
