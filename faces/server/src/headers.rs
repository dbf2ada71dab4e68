//! The headers that say whose view of the stores a request means.

use berth_core::Scope;
use berth_types::{LeaseId, Namespace};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::shared::ok;

const NAMESPACE: &str = "containerd-namespace";
const LEASE: &str = "containerd-lease";

/// The namespace and the lease of a request. Without a namespace it is answered as containerd answers it.
pub(crate) fn scope<T>(request: &Request<T>) -> Result<Scope, Status> {
    scope_of(request.metadata())
}

/// The same for headers whose request has been taken apart.
pub(crate) fn scope_of(headers: &MetadataMap) -> Result<Scope, Status> {
    let Some(namespace) = value(headers, NAMESPACE)? else {
        return Err(Status::failed_precondition("namespace is required: failed precondition"));
    };
    let namespace: Namespace =
        ok(namespace.parse().map_err(|error: berth_types::Error| error.context("namespace validation")))?;
    let lease = match value(headers, LEASE)? {
        Some(lease) => Some(ok(lease.parse::<LeaseId>())?),
        None => None,
    };
    Ok(Scope { namespace, lease })
}

fn value<'a>(headers: &'a MetadataMap, key: &'static str) -> Result<Option<&'a str>, Status> {
    let Some(value) = headers.get(key) else { return Ok(None) };
    let text = value
        .to_str()
        .map_err(|_| Status::invalid_argument(format!("the header {key} is not plain text")))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (key, value) in pairs {
            map.append(*key, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_request_without_a_namespace_is_answered_as_containerd_does() {
        for missing in [headers(&[]), headers(&[(NAMESPACE, "")])] {
            let status = scope_of(&missing).unwrap_err();
            assert_eq!(status.code(), tonic::Code::FailedPrecondition);
            assert!(status.message().starts_with("namespace is required"));
        }
        let status = scope_of(&headers(&[(NAMESPACE, "a/b")])).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with("namespace validation: "), "{}", status.message());
    }

    #[test]
    fn the_first_namespace_counts_and_the_lease_comes_along() {
        let scope = scope_of(&headers(&[(NAMESPACE, "moby"), (NAMESPACE, "other"), (LEASE, "l1")])).unwrap();
        assert_eq!(scope.namespace.as_str(), "moby");
        assert_eq!(scope.lease.unwrap().as_str(), "l1");
    }
}
