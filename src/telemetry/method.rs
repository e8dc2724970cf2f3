//! The methods of `larder.v1`, as metrics and traces name them.

macro_rules! methods {
    ($($method:ident = $path:literal,)*) => {
        /// A method of the Cache, Admin or Cluster service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Method {
            $(
                #[doc = concat!("`larder.v1.", $path, "`")]
                $method,
            )*
            /// Any other: health, reflection, and what nobody serves.
            Other,
        }

        impl Method {
            /// Every method, [`Self::Other`] last.
            pub const ALL: [Self; [$($path,)* "other"].len()] = [$(Self::$method,)* Self::Other];

            /// The name in labels and spans: `larder.v1.Cache/Get`; `other` for the rest.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$method => concat!("larder.v1.", $path),)*
                    Self::Other => "other",
                }
            }

            /// The name alone: `Get`; `other` for the rest.
            #[must_use]
            pub fn name(self) -> &'static str {
                self.as_str().rsplit('/').next().unwrap_or_default()
            }

            /// Whether a call of it lasts as long as its peers like, and not as long as the node takes.
            #[must_use]
            pub fn is_stream(self) -> bool {
                matches!(
                    self,
                    Self::Pipeline
                        | Self::PutBlob
                        | Self::GetBlob
                        | Self::Watch
                        | Self::StreamStats
                        | Self::WatchRing
                        | Self::Forward
                        | Self::Other
                )
            }

            /// The method of a request's path: `/larder.v1.Cache/Get`.
            #[must_use]
            pub fn of_path(path: &str) -> Self {
                match path {
                    $(concat!("/larder.v1.", $path) => Self::$method,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

methods! {
    Get = "Cache/Get",
    Set = "Cache/Set",
    Delete = "Cache/Delete",
    Increment = "Cache/Increment",
    Decrement = "Cache/Decrement",
    Touch = "Cache/Touch",
    BatchGet = "Cache/BatchGet",
    BatchSet = "Cache/BatchSet",
    BatchDelete = "Cache/BatchDelete",
    Pipeline = "Cache/Pipeline",
    PutBlob = "Cache/PutBlob",
    GetBlob = "Cache/GetBlob",
    DeleteBlob = "Cache/DeleteBlob",
    ListBlobs = "Cache/ListBlobs",
    Scan = "Cache/Scan",
    Invalidate = "Cache/Invalidate",
    Watch = "Cache/Watch",
    Spawn = "Admin/Spawn",
    Drain = "Admin/Drain",
    GetStats = "Admin/GetStats",
    StreamStats = "Admin/StreamStats",
    ResetStats = "Admin/ResetStats",
    SetEvictionPolicy = "Admin/SetEvictionPolicy",
    Resize = "Admin/Resize",
    CreateNamespace = "Admin/CreateNamespace",
    UpdateNamespace = "Admin/UpdateNamespace",
    ListNamespaces = "Admin/ListNamespaces",
    DeleteNamespace = "Admin/DeleteNamespace",
    Clear = "Admin/Clear",
    Flush = "Admin/Flush",
    CreateSnapshot = "Admin/CreateSnapshot",
    ListSnapshots = "Admin/ListSnapshots",
    VerifyRecovery = "Admin/VerifyRecovery",
    CompactJournal = "Admin/CompactJournal",
    GetConfig = "Admin/GetConfig",
    UpdateConfig = "Admin/UpdateConfig",
    ListHotKeys = "Admin/ListHotKeys",
    ListSlowOps = "Admin/ListSlowOps",
    GetMemoryReport = "Admin/GetMemoryReport",
    ExplainKey = "Admin/ExplainKey",
    GetRing = "Cluster/GetRing",
    WatchRing = "Cluster/WatchRing",
    Forward = "Cluster/Forward",
    Fence = "Cluster/Fence",
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn every_method_of_the_contract_is_known_and_no_other() {
        let set = prost_types::FileDescriptorSet::decode(crate::api::FILE_DESCRIPTOR_SET).unwrap();
        let mut paths: Vec<String> = Vec::new();
        let methods = set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
        for method in methods.filter(|method| method.client_streaming() || method.server_streaming()) {
            let found = Method::ALL.into_iter().find(|known| known.name() == method.name());
            assert!(found.is_some_and(Method::is_stream), "{}", method.name());
        }
        for service in set.file.iter().flat_map(|file| &file.service) {
            let name = service.name();
            paths.extend(service.method.iter().map(|method| format!("larder.v1.{name}/{}", method.name())));
        }
        for path in &paths {
            assert_eq!(Method::of_path(&format!("/{path}")).as_str(), path);
        }
        assert_eq!(Method::ALL.len(), paths.len() + 1);
        for (number, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, number);
        }
        assert_eq!(Method::of_path("/grpc.health.v1.Health/Check"), Method::Other);
    }
}
