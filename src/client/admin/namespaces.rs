//! The admin listener's calls about namespaces.

use std::time::Duration;

use super::AdminClient;
use super::convert;
use super::outcome::{NamespaceDeletion, NamespaceSettings};
use crate::client::convert::wire_ms;
use crate::client::error::ClientError;
use crate::proto::v1;
use crate::verb::Verb;

/// What to change of a namespace; what is None stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceUpdate {
    /// The new cap in bytes; 0 takes it away. Of the default namespace: the node's limit.
    pub bytes_limit: Option<u64>,
    /// The new eviction policy; "" is the node's.
    pub policy: Option<String>,
    /// The new TTL of what is stored without an expiration; zero: such entries never expire.
    pub default_ttl: Option<Duration>,
    /// How long clients may answer from the copies that they make from now on; zero: only while Watch keeps them true.
    pub near_cache_ttl: Option<Duration>,
}

impl AdminClient {
    /// All namespaces, up to 1,024, with what is in force for them, the default one first, the others by name.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn namespaces(&self) -> Result<Vec<NamespaceSettings>, ClientError> {
        let answer = self.call(v1::ListNamespacesRequest {}).await?;
        Ok(answer.namespaces.into_iter().map(convert::namespace).collect())
    }

    /// Creates a namespace with the settings of the change, and the node's for the rest; answers what is in force.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn create_namespace(
        &self,
        name: &str,
        settings: &NamespaceUpdate,
    ) -> Result<NamespaceSettings, ClientError> {
        let message = v1::CreateNamespaceRequest { namespace: Some(settings.config(name)) };
        let namespace = self.call(message).await?.namespace.map(convert::namespace);
        namespace.ok_or_else(|| self.bad_answer(Verb::CreateNamespace, "no namespace"))
    }

    /// Changes a namespace, all of the change or nothing, and answers what is in force.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`]; a change of nothing is INVALID_ARGUMENT.
    pub async fn update_namespace(
        &self,
        name: &str,
        change: &NamespaceUpdate,
    ) -> Result<NamespaceSettings, ClientError> {
        let message = v1::UpdateNamespaceRequest {
            namespace: Some(change.config(name)),
            update_mask: Some(prost_types::FieldMask { paths: change.paths() }),
        };
        let namespace = self.call(message).await?.namespace.map(convert::namespace);
        namespace.ok_or_else(|| self.bad_answer(Verb::UpdateNamespace, "no namespace"))
    }

    /// Removes a namespace with all that is in it, and answers how much that was.
    ///
    /// # Errors
    /// See [`AdminClient::spawn`].
    pub async fn delete_namespace(&self, name: &str) -> Result<NamespaceDeletion, ClientError> {
        let answer = self.call(v1::DeleteNamespaceRequest { name: name.to_owned() }).await?;
        Ok(convert::namespace_deletion(&answer))
    }
}

impl NamespaceUpdate {
    fn config(&self, name: &str) -> v1::NamespaceConfig {
        v1::NamespaceConfig {
            name: name.to_owned(),
            bytes_limit: self.bytes_limit.unwrap_or_default(),
            policy: self.policy.clone().unwrap_or_default(),
            default_ttl_ms: self.default_ttl.map_or(0, wire_ms),
            near_cache_ttl_ms: self.near_cache_ttl.map_or(0, wire_ms),
        }
    }

    fn paths(&self) -> Vec<String> {
        let named = [
            ("bytes_limit", self.bytes_limit.is_some()),
            ("policy", self.policy.is_some()),
            ("default_ttl_ms", self.default_ttl.is_some()),
            ("near_cache_ttl_ms", self.near_cache_ttl.is_some()),
        ];
        named.into_iter().filter(|(_, is_some)| *is_some).map(|(path, _)| path.to_owned()).collect()
    }
}
