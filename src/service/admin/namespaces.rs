//! Admin's calls about namespaces: creating, changing, listing, emptying and deleting them.

use std::sync::Arc;

use tonic::Status;

use super::{AdminService, blocking};
use crate::cache::{Cache, Removed};
use crate::engine::{BYTES_LIMIT_MIN, Namespace, NamespaceChange};
use crate::proto::v1;
use crate::request::CallError;
use crate::service::codec::namespace::{self, BytesBounds, NamespaceBounds};
use crate::service::{blobs, unary};

/// Deletes a namespace; how many entries and blobs went with it.
fn delete_whole(cache: &Cache, name: &str) -> Result<(u64, u64), CallError> {
    let clear = || match cache.blobs() {
        Some(store) => store.clear(name).map_err(|error| blobs::refused(error, b"")),
        None => Ok(Removed::default()),
    };
    // What was invalidated before went with that.
    cache.sweep(usize::MAX);
    // Where the disk refuses, nothing but blobs is gone, and the namespace can be deleted again.
    let is_named = cache.namespace(name).is_some_and(|namespace| !namespace.name().is_empty());
    let before = if is_named { clear()?.blobs } else { 0 };
    let entries = cache.delete_namespace(name)?;
    // The memory is back when this is answered.
    cache.sweep(usize::MAX);
    // Those that were stored in between; from here on none is.
    Ok((entries, before + clear()?.blobs))
}

impl AdminService {
    pub(super) fn create(
        &self,
        request: v1::CreateNamespaceRequest,
    ) -> Result<v1::CreateNamespaceResponse, CallError> {
        let message = request.namespace.unwrap_or_default();
        let config = namespace::config(&message, &self.bounds_of_caps())?;
        let namespace = self.cache.create_namespace(&config)?;
        let config = namespace.config();
        tracing::info!(namespace = ?config.name, bytes_limit = config.bytes_limit, policy = %config.policy,
            default_ttl_ms = config.default_ttl.to_wire_ms(), near_cache_ttl_ms = config.near_cache_ttl_ms,
            "namespace created");
        Ok(v1::CreateNamespaceResponse { namespace: Some(config.into()) })
    }

    pub(super) async fn update(
        &self,
        request: v1::UpdateNamespaceRequest,
    ) -> Result<v1::UpdateNamespaceResponse, Status> {
        let message = request.namespace.unwrap_or_default();
        let namespace = unary::namespace(&self.cache, &message.name)?.into_owned();
        let bounds = NamespaceBounds { bytes_limit: self.bytes_bounds(&namespace), ..self.bounds_of_caps() };
        let paths = request.update_mask.unwrap_or_default().paths;
        let change = namespace::change(&message, &paths, &bounds)?;
        let (cache, changed) = (Arc::clone(&self.cache), namespace.clone());
        // A lower limit is come down to, which takes a while.
        blocking("updating", move || cache.update_namespace(&changed, &change)).await?;
        let config = namespace.config();
        tracing::info!(namespace = ?config.name, bytes_limit = config.bytes_limit, policy = %config.policy,
            default_ttl_ms = config.default_ttl.to_wire_ms(), near_cache_ttl_ms = config.near_cache_ttl_ms,
            "namespace changed");
        Ok(v1::UpdateNamespaceResponse { namespace: Some(config.into()) })
    }

    pub(super) fn list(&self) -> v1::ListNamespacesResponse {
        let namespaces = self.cache.namespaces();
        let namespaces = namespaces.iter().map(|namespace| namespace.config().into()).collect();
        v1::ListNamespacesResponse { namespaces }
    }

    pub(super) async fn delete(
        &self,
        request: v1::DeleteNamespaceRequest,
    ) -> Result<v1::DeleteNamespaceResponse, Status> {
        let (cache, name) = (Arc::clone(&self.cache), request.name);
        let deleted = name.clone();
        let removed = blocking("deleting", move || delete_whole(&cache, &deleted));
        let (entries, blobs) = removed.await??;
        tracing::info!(namespace = ?name, entries, blobs, "namespace deleted");
        Ok(v1::DeleteNamespaceResponse { entries, blobs })
    }

    pub(super) async fn resize_namespace(
        &self,
        request: v1::ResizeRequest,
    ) -> Result<v1::ResizeResponse, Status> {
        let namespace = unary::namespace(&self.cache, &request.namespace)?.into_owned();
        let bytes_limit = self.bytes_bounds(&namespace).check(request.bytes_limit, "bytes_limit")?;
        let previous = namespace.config().bytes_limit;
        let change = NamespaceChange { bytes_limit: Some(bytes_limit), ..NamespaceChange::default() };
        let cache = Arc::clone(&self.cache);
        // Evicting down to a lower limit takes a while, in slices; it must not hold up a worker's other calls.
        blocking("resizing", move || cache.update_namespace(&namespace, &change)).await?;
        tracing::info!(namespace = ?request.namespace, previous, bytes_limit, "resized");
        Ok(v1::ResizeResponse { previous_bytes_limit: previous })
    }

    pub(super) async fn clear_namespace(
        &self,
        request: v1::ClearRequest,
    ) -> Result<v1::ClearResponse, Status> {
        let namespace = unary::namespace(&self.cache, &request.namespace)?.into_owned();
        let cache = Arc::clone(&self.cache);
        let entries = blocking("clearing", move || cache.clear(&namespace)).await?;
        tracing::info!(namespace = ?request.namespace, entries, "cleared");
        Ok(v1::ClearResponse { entries })
    }

    /// What the settings of any namespace but the default one are held to.
    fn bounds_of_caps(&self) -> NamespaceBounds {
        let node = self.cache.default_namespace().config();
        NamespaceBounds {
            bytes_limit: BytesBounds::Cap { node: node.bytes_limit },
            ttl_ms_max: self.cache.limits().ttl_ms_max,
            policy: node.policy,
        }
    }

    fn bytes_bounds(&self, namespace: &Namespace) -> BytesBounds {
        if namespace.name().is_empty() {
            // What every shard must be able to hold.
            let min = self.cache.bytes_limit_min().max(BYTES_LIMIT_MIN);
            return BytesBounds::Node { min, max: self.node.memory_bytes_max() };
        }
        self.bounds_of_caps().bytes_limit
    }
}
