//! Which request means what.

use std::fmt::Display;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router, middleware};
use hyper::ext::ReasonPhrase;
use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, OpenApi, ToSchema};

use super::asked::{Asked, Failed, Nothing, whole};
use super::ch::{
    Described, DiskConfig, FsConfig, GenericVhostUserConfig, NetConfig, VmConfig, VmInfo, none,
};
use super::metrics;
use crate::config::NewDevice;
use crate::vm::{Control, Counters, Info, Plugged, Refusal};

/// The routes, and the document that lists them.
macro_rules! routes {
    ($($method:ident $path:literal $handler:ident,)*) => {
        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "Outboard",
                description = "A VM, steered over its Unix socket: Cloud Hypervisor's requests, and ours",
            ),
            servers((url = "http://localhost/api/v1")),
            paths($($handler),*),
            components(schemas(Plugged)) // not found behind `Added`
        )]
        struct Document;

        fn requests() -> Router<Control> {
            Router::new()$(.route($path, $method($handler)))*
        }

        #[cfg(test)]
        const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];
    };
}

routes! {
    get "/vmm.ping" ping,
    put "/vmm.shutdown" end,
    get "/vm.info" vm_info,
    get "/vm.counters" counters,
    put "/vm.create" create,
    put "/vm.boot" boot,
    put "/vm.pause" pause,
    put "/vm.resume" resume,
    put "/vm.reboot" reboot,
    put "/vm.power-button" power_button,
    put "/vm.shutdown" shutdown,
    put "/vm.delete" delete,
    put "/vm.add-disk" add_disk,
    put "/vm.add-net" add_net,
    put "/vm.add-fs" add_fs,
    put "/vm.add-generic-vhost-user" add_generic_vhost_user,
    put "/vm.remove-device" remove_device,
    get "/outboard.info" info,
    put "/outboard.add-device" add_device,
}

/// The requests that a VM answers.
pub(super) fn router(control: Control) -> Router {
    let api = requests().route("/openapi.json", get(openapi));
    Router::new()
        .nest("/api/v1", api)
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn(whole))
        .layer(middleware::map_response(without_reason))
        .with_state(control)
}

/// Leaves the reason phrase out (RFC 9112, section 4), as Cloud Hypervisor does: its client takes all
/// that stands between the version and the line's end for the status.
async fn without_reason(mut response: Response) -> Response {
    let none = ReasonPhrase::from_static(b"");
    response.extensions_mut().insert(none);
    response
}

async fn openapi(_: Nothing) -> Response {
    Json(Document::openapi()).into_response()
}

async fn unknown(request: axum::extract::Request) -> Failed {
    let path = request.uri().path();
    let why = format!("{path} is not known; GET /api/v1/openapi.json lists what is");
    Failed(StatusCode::NOT_FOUND, vec![why])
}

async fn other_method(request: axum::extract::Request) -> Failed {
    let (method, path) = (request.method(), request.uri().path());
    let why = format!("{method} is not how {path} is asked; GET reads, PUT does");
    Failed(StatusCode::METHOD_NOT_ALLOWED, vec![why])
}

async fn metrics(State(vm): State<Control>, _: Nothing) -> Response {
    let text = metrics::text(&vm).await;
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// Who answers.
#[derive(Serialize, ToSchema)]
struct Ping {
    version: &'static str,
    build_version: &'static str,
    pid: u32,
    features: [String; 0],
}

/// Says who is there.
#[utoipa::path(get, path = "/vmm.ping", responses((status = 200, body = Ping)))]
async fn ping(_: Nothing) -> Json<Ping> {
    Json(Ping {
        version: env!("CARGO_PKG_VERSION"),
        build_version: concat!("v", env!("CARGO_PKG_VERSION")),
        pid: std::process::id(),
        features: [],
    })
}

/// Everything of a VM that runs, in our words.
#[utoipa::path(get, path = "/outboard.info", responses(
    (status = 200, description = "A VM", body = serde_json::Value),
    (status = 405, description = "It is not booted"),
))]
async fn info(State(vm): State<Control>, _: Nothing) -> Result<Json<Info>, Refusal> {
    vm.info().await.map(Json)
}

/// A VM in Cloud Hypervisor's words.
#[utoipa::path(get, path = "/vm.info", responses(
    (status = 200, body = VmInfo),
    (status = 404, description = "There is no VM"),
))]
async fn vm_info(
    State(vm): State<Control>,
    _: Nothing,
) -> Result<Json<serde_json::Value>, Refusal> {
    vm.tell().await.map(|told| Json(VmInfo::json(&told)))
}

/// What KVM counts, by vCPU and by KVM's names. The VMM sees no I/O that it could count.
#[utoipa::path(get, path = "/vm.counters", responses(
    (status = 200, body = std::collections::BTreeMap<String, std::collections::BTreeMap<String, u64>>),
    (status = 405, description = "The VM is not booted"),
))]
async fn counters(State(vm): State<Control>, _: Nothing) -> Result<Json<Counters>, Refusal> {
    vm.counters().await.map(Json)
}

/// Describes the VM.
#[utoipa::path(put, path = "/vm.create", request_body = VmConfig, responses(
    (status = 204, description = "It can be booted"),
    (status = 400, description = "It makes no sense, or is not possible"),
    (status = 409, description = "There is one"),
))]
async fn create(
    State(vm): State<Control>,
    Asked(config, fds): Asked<VmConfig>,
) -> Result<StatusCode, Failed> {
    none(&fds).map_err(Failed::bad)?;
    let described = config.ours().map_err(Failed::bad)?;
    Ok(vm.create(described).await.map(done)?)
}

/// Boots the VM. Answers when its guest runs.
#[utoipa::path(put, path = "/vm.boot", responses(
    (status = 204, description = "Its guest runs"),
    (status = 404, description = "There is no VM"),
    (status = 500, description = "It cannot be booted, and stays described"),
))]
async fn boot(State(vm): State<Control>, _: Nothing) -> Result<StatusCode, Refusal> {
    vm.boot().await.map(done)
}

/// Stops vCPUs and devices where they are.
#[utoipa::path(put, path = "/vm.pause", responses(
    (status = 204, description = "They have stopped"),
    (status = 405, description = "The VM does not run"),
))]
async fn pause(State(vm): State<Control>, _: Nothing) -> Result<StatusCode, Refusal> {
    vm.pause().await.map(done)
}

/// Lets them go on.
#[utoipa::path(put, path = "/vm.resume", responses(
    (status = 204, description = "They go on"),
    (status = 405, description = "The VM is not paused"),
))]
async fn resume(State(vm): State<Control>, _: Nothing) -> Result<StatusCode, Refusal> {
    vm.resume().await.map(done)
}

/// Resets the machine.
#[utoipa::path(put, path = "/vm.reboot", responses(
    (status = 204, description = "It is being reset"),
    (status = 405, description = "The VM is not booted"),
))]
async fn reboot(State(vm): State<Control>, _: Nothing) -> Result<StatusCode, Refusal> {
    vm.reboot().await.map(done)
}

/// Presses the power button.
#[utoipa::path(put, path = "/vm.power-button", responses(
    (status = 204, description = "The guest has been told"),
    (status = 405, description = "The VM is not booted"),
))]
async fn power_button(State(vm): State<Control>, _: Nothing) -> Result<StatusCode, Refusal> {
    vm.press_power_button().await.map(done)
}

/// Ends the VM at once. That of an empty VMM can be booted again.
#[utoipa::path(put, path = "/vm.shutdown", responses(
    (status = 204, description = "It has ended"),
    (status = 405, description = "It is not booted"),
))]
async fn shutdown(State(vm): State<Control>, _: Nothing) -> Result<StatusCode, Refusal> {
    vm.shutdown().await.map(done)
}

/// The same, and the VM is forgotten.
#[utoipa::path(put, path = "/vm.delete", responses(
    (status = 204, description = "There is no VM"),
))]
async fn delete(State(vm): State<Control>, _: Nothing) -> Result<StatusCode, Refusal> {
    vm.delete().await.map(done)
}

/// The same, and the VMM ends.
#[utoipa::path(put, path = "/vmm.shutdown", responses(
    (status = 204, description = "The process ends"),
))]
async fn end(State(vm): State<Control>, _: Nothing) -> Result<StatusCode, Refusal> {
    vm.end().await.map(done)
}

/// What becomes of a device that is to be added.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the document only")]
enum Added {
    /// It is plugged in
    #[response(status = 200)]
    Plugged(Plugged),
    /// The VM is not booted, and will have it
    #[response(status = 204)]
    Described,
    /// It makes no sense, or is not possible
    #[response(status = 400)]
    Nonsense(Vec<String>),
    /// There is no VM
    #[response(status = 404)]
    NoVm(Vec<String>),
    /// Its id is taken, or another of its id is on its way in or out
    #[response(status = 409)]
    Taken(Vec<String>),
    /// Its daemon has not come up, or the host could not do it
    #[response(status = 500)]
    Failed(Vec<String>),
}

/// Adds a disk.
#[utoipa::path(put, path = "/vm.add-disk", request_body = DiskConfig, responses(Added))]
async fn add_disk(vm: State<Control>, disk: Asked<DiskConfig>) -> Result<Response, Failed> {
    add(vm, disk).await
}

/// Adds a network card. The descriptors of a tap, at most 32, come with the request (`SCM_RIGHTS`).
#[utoipa::path(put, path = "/vm.add-net", request_body = NetConfig, responses(Added))]
async fn add_net(vm: State<Control>, net: Asked<NetConfig>) -> Result<Response, Failed> {
    add(vm, net).await
}

/// Adds a shared file system.
#[utoipa::path(put, path = "/vm.add-fs", request_body = FsConfig, responses(Added))]
async fn add_fs(vm: State<Control>, fs: Asked<FsConfig>) -> Result<Response, Failed> {
    add(vm, fs).await
}

/// Adds any device that somebody's daemon serves.
#[utoipa::path(
    put, path = "/vm.add-generic-vhost-user", request_body = GenericVhostUserConfig,
    responses(Added)
)]
async fn add_generic_vhost_user(
    vm: State<Control>,
    device: Asked<GenericVhostUserConfig>,
) -> Result<Response, Failed> {
    add(vm, device).await
}

/// Adds a device in our words, those of a VM's file: `{"disk": {"path": "a.img"}}`.
#[utoipa::path(put, path = "/outboard.add-device", request_body = serde_json::Value, responses(Added))]
async fn add_device(vm: State<Control>, device: Asked<NewDevice>) -> Result<Response, Failed> {
    add(vm, device).await
}

async fn add<T: Described>(
    State(vm): State<Control>,
    Asked(device, fds): Asked<T>,
) -> Result<Response, Failed> {
    let device = device.device(fds).map_err(Failed::bad)?;
    Ok(match vm.add(device).await? {
        Some(plugged) => Json(plugged).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// The body of `vm.remove-device`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Remove {
    id: String,
}

/// Asks the guest to let go of a device. Does not wait for it.
#[utoipa::path(put, path = "/vm.remove-device", request_body = Remove, responses(
    (status = 204, description = "The guest has been asked"),
    (status = 404, description = "There is no such device, or no VM"),
    (status = 409, description = "It is on its way in or out"),
))]
async fn remove_device(
    State(vm): State<Control>,
    Asked(Remove { id }, fds): Asked<Remove>,
) -> Result<StatusCode, Failed> {
    none(&fds).map_err(Failed::bad)?;
    Ok(vm.remove(&id).await.map(done)?)
}

fn done((): ()) -> StatusCode {
    StatusCode::NO_CONTENT
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NotRunning(_) | Refusal::NotPaused(_) | Refusal::NotBooted => {
                StatusCode::METHOD_NOT_ALLOWED
            }
            Refusal::Taken(_) | Refusal::Busy { .. } | Refusal::Created | Refusal::Booted => {
                StatusCode::CONFLICT
            }
            Refusal::NoDevice { .. } | Refusal::NotCreated => StatusCode::NOT_FOUND,
            Refusal::Description(_) => StatusCode::BAD_REQUEST,
            Refusal::Late(_) | Refusal::Connect(_) | Refusal::Failed(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Refusal::Over => StatusCode::GONE,
        };
        Self(status, causes(&refusal))
    }
}

/// An error and what it comes from, each in a text of its own.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let text = |error: &dyn Display| error.to_string();
    let mut all = vec![text(&error)];
    let mut cause = error.source();
    while let Some(next) = cause {
        all.push(text(&next));
        cause = next.source();
    }
    all
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Failed::from(self).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_lists_every_request_as_it_is_asked() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), ROUTES.len());
        for (method, path) in ROUTES {
            assert!(paths[*path][*method].is_object(), "{method} {path}");
        }
        let adds = paths.iter().filter(|(path, _)| path.contains(".add-"));
        for (path, add) in adds {
            let responses = add["put"]["responses"].as_object().unwrap();
            let statuses: Vec<_> = responses.keys().collect();
            assert_eq!(
                statuses,
                ["200", "204", "400", "404", "409", "500"],
                "{path}"
            );
        }
        // What it refers to is there.
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
