//! What can be wrong with `--cpu`.

/// What can be wrong with `--cpu`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuidError {
    /// No such name.
    #[error("CPU feature '{name}' is not known; {}", suggestion(near))]
    Unknown {
        /// As written.
        name: String,
        /// Names that look like it.
        near: Vec<&'static str>,
    },
    /// `+name` for what the host has not.
    #[error(
        "this host's KVM does not offer the CPU feature '{name}'; leave +{name} out, or use another host"
    )]
    NotSupported {
        /// As written.
        name: String,
    },
}

fn suggestion(near: &[&str]) -> String {
    if near.is_empty() {
        return "features are spelled as QEMU does, for example smap, avx2, xsave".to_owned();
    }
    format!("did you mean {}?", near.join(" or "))
}
