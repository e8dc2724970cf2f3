//! The table of verbs: every method of the contract, with all that is to be known of it before its request is read.
//!
//! Paths, metric labels, span names, time-outs, the slow log, how a listener serves it and which calls queue behind writes
//! that wait for the disk: all ask this table. A new verb is a row here and the code that does it.

/// What a verb does to what it names, and so the right that its caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// It reads entries or blobs. A Get may renew a time to live.
    Read,
    /// It changes entries or blobs.
    Write,
    /// It reads and changes, as its messages say.
    ReadWrite,
    /// It operates the node.
    Operate,
    /// It is for nodes and clients that route: it tells of the ring, or is passed on.
    Route,
    /// It is not the contract's.
    Other,
}

/// What may be done when the answer of a call is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// It changes nothing.
    NoSideEffects,
    /// Done twice it comes to the same.
    Idempotent,
    /// Done twice it may come to something else, unless its request has an id.
    Unknown,
}

/// Which keys a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keys {
    /// None: it is about a namespace, a prefix or the node.
    None,
    /// One key.
    One,
    /// As many as its message has.
    Many,
}

/// Which sides of a call are streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Streams {
    /// Neither: one message each.
    Neither,
    /// The request.
    Request,
    /// The response.
    Response,
    /// Both.
    Both,
}

/// What answers a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Served {
    /// The data plane, with one message for one message: `service::request::Request` has a case for it.
    Unary,
    /// The data plane, as the stream of commands.
    Pipeline,
    /// The data plane, as the stream of a blob's parts.
    PutBlob,
    /// The data plane, from the blobs, to a request of one message.
    Blob,
    /// The data plane, as the stream of what is no longer true.
    Watch,
    /// Nothing yet: the contract has it, and a call is UNIMPLEMENTED.
    Planned,
    /// A service that tonic generated.
    Generated,
}

macro_rules! verbs {
    ($($verb:ident = $path:literal $access:ident $idempotency:ident $keys:ident $streams:ident $served:ident,)*) => {
        /// A method of the Cache, Admin or Cluster service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Verb {
            $(
                #[doc = concat!("`larder.v1.", $path, "`")]
                $verb,
            )*
            /// Any other: health, reflection, and what nobody serves.
            Other,
        }

        /// A row of the table.
        #[derive(Debug)]
        struct Row {
            path: &'static str,
            label: &'static str,
            access: Access,
            idempotency: Idempotency,
            keys: Keys,
            streams: Streams,
            served: Served,
        }

        static ROWS: [Row; Verb::ALL.len()] = [
            $(Row {
                path: concat!("/larder.v1.", $path),
                label: concat!("larder.v1.", $path),
                access: Access::$access,
                idempotency: Idempotency::$idempotency,
                keys: Keys::$keys,
                streams: Streams::$streams,
                served: Served::$served,
            },)*
            Row {
                path: "",
                label: "other",
                access: Access::Other,
                idempotency: Idempotency::Unknown,
                keys: Keys::None,
                streams: Streams::Both,
                served: Served::Generated,
            },
        ];

        impl Verb {
            /// Every verb, [`Self::Other`] last.
            pub const ALL: [Self; [$($path,)* "other"].len()] = [$(Self::$verb,)* Self::Other];

            /// The verb of a request's path: `/larder.v1.Cache/Get`.
            #[must_use]
            pub fn of_path(path: &str) -> Self {
                match path {
                    $(concat!("/larder.v1.", $path) => Self::$verb,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

verbs! {
    Get = "Cache/Get" Read Idempotent One Neither Unary,
    Set = "Cache/Set" Write Idempotent One Neither Unary,
    Delete = "Cache/Delete" Write Idempotent One Neither Unary,
    Increment = "Cache/Increment" Write Unknown One Neither Unary,
    Decrement = "Cache/Decrement" Write Unknown One Neither Unary,
    Touch = "Cache/Touch" Write Idempotent One Neither Unary,
    BatchGet = "Cache/BatchGet" Read NoSideEffects Many Neither Unary,
    BatchSet = "Cache/BatchSet" Write Idempotent Many Neither Unary,
    BatchDelete = "Cache/BatchDelete" Write Idempotent Many Neither Unary,
    Pipeline = "Cache/Pipeline" ReadWrite Unknown Many Both Pipeline,
    PutBlob = "Cache/PutBlob" Write Idempotent One Request PutBlob,
    GetBlob = "Cache/GetBlob" Read NoSideEffects One Response Blob,
    DeleteBlob = "Cache/DeleteBlob" Write Idempotent One Neither Blob,
    ListBlobs = "Cache/ListBlobs" Read NoSideEffects None Neither Blob,
    Scan = "Cache/Scan" Read NoSideEffects None Neither Unary,
    Invalidate = "Cache/Invalidate" Write Idempotent None Neither Unary,
    Watch = "Cache/Watch" Read NoSideEffects None Response Watch,
    Spawn = "Admin/Spawn" Operate Idempotent None Neither Generated,
    Drain = "Admin/Drain" Operate Idempotent None Neither Generated,
    GetStats = "Admin/GetStats" Operate NoSideEffects None Neither Generated,
    StreamStats = "Admin/StreamStats" Operate NoSideEffects None Response Generated,
    ResetStats = "Admin/ResetStats" Operate Idempotent None Neither Generated,
    SetEvictionPolicy = "Admin/SetEvictionPolicy" Operate Idempotent None Neither Generated,
    Resize = "Admin/Resize" Operate Idempotent None Neither Generated,
    CreateNamespace = "Admin/CreateNamespace" Operate Unknown None Neither Generated,
    UpdateNamespace = "Admin/UpdateNamespace" Operate Idempotent None Neither Generated,
    ListNamespaces = "Admin/ListNamespaces" Operate NoSideEffects None Neither Generated,
    DeleteNamespace = "Admin/DeleteNamespace" Operate Unknown None Neither Generated,
    Clear = "Admin/Clear" Operate Idempotent None Neither Generated,
    Flush = "Admin/Flush" Operate Idempotent None Neither Generated,
    CreateSnapshot = "Admin/CreateSnapshot" Operate Unknown None Neither Generated,
    ListSnapshots = "Admin/ListSnapshots" Operate NoSideEffects None Neither Generated,
    VerifyRecovery = "Admin/VerifyRecovery" Operate NoSideEffects None Neither Generated,
    CompactJournal = "Admin/CompactJournal" Operate Idempotent None Neither Generated,
    GetConfig = "Admin/GetConfig" Operate NoSideEffects None Neither Generated,
    UpdateConfig = "Admin/UpdateConfig" Operate Idempotent None Neither Generated,
    ListHotKeys = "Admin/ListHotKeys" Operate NoSideEffects None Neither Generated,
    ListSlowOps = "Admin/ListSlowOps" Operate NoSideEffects None Neither Generated,
    GetMemoryReport = "Admin/GetMemoryReport" Operate NoSideEffects None Neither Generated,
    ExplainKey = "Admin/ExplainKey" Operate NoSideEffects One Neither Generated,
    GetRing = "Cluster/GetRing" Route NoSideEffects None Neither Generated,
    WatchRing = "Cluster/WatchRing" Route NoSideEffects None Response Generated,
    Forward = "Cluster/Forward" Route Unknown Many Both Planned,
}

impl Verb {
    /// The name in labels and spans: `larder.v1.Cache/Get`; `other` for the rest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().label
    }

    /// The path of its calls: `/larder.v1.Cache/Get`; empty for the rest.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// The name alone: `Get`; `other` for the rest.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.as_str().rsplit('/').next().unwrap_or_default()
    }

    /// What it does to what it names.
    #[must_use]
    pub fn access(self) -> Access {
        self.row().access
    }

    /// Whether it changes entries or blobs, and nothing else.
    #[must_use]
    pub fn writes(self) -> bool {
        self.access() == Access::Write
    }

    /// What may be done when the answer is lost.
    #[cfg_attr(
        not(any(feature = "testing", feature = "client")),
        expect(dead_code, reason = "the table is whole before all of it is asked")
    )]
    #[must_use]
    pub fn idempotency(self) -> Idempotency {
        self.row().idempotency
    }

    /// Which keys its request names.
    #[cfg_attr(
        not(feature = "testing"),
        expect(dead_code, reason = "the table is whole before all of it is asked")
    )]
    #[must_use]
    pub fn keys(self) -> Keys {
        self.row().keys
    }

    /// What answers it.
    #[must_use]
    pub fn served(self) -> Served {
        self.row().served
    }

    /// Which sides of it are streams.
    #[must_use]
    pub fn streams(self) -> Streams {
        self.row().streams
    }

    /// Whether a call of it lasts as long as its peers like, and not as long as the node takes.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self.streams() != Streams::Neither
    }

    fn row(self) -> &'static Row {
        // There is a row for each.
        &ROWS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::method_options::IdempotencyLevel;

    use super::*;

    #[test]
    fn the_table_has_every_method_of_the_contract_as_the_contract_has_it() {
        let set = prost_types::FileDescriptorSet::decode(crate::proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut verbs = Verb::ALL.len() - 1;
        for service in set.file.iter().flat_map(|file| &file.service) {
            for method in &service.method {
                let label = format!("larder.v1.{}/{}", service.name(), method.name());
                let verb = Verb::of_path(&format!("/{label}"));
                assert_eq!((verb.as_str(), verb.name()), (&*label, method.name()));
                assert_eq!(verb.path(), format!("/{label}"));
                let streams = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => Streams::Neither,
                    (true, false) => Streams::Request,
                    (false, true) => Streams::Response,
                    (true, true) => Streams::Both,
                };
                assert_eq!(verb.streams(), streams, "{label}");
                let idempotency = match method.options.as_ref().unwrap().idempotency_level() {
                    IdempotencyLevel::NoSideEffects => Idempotency::NoSideEffects,
                    IdempotencyLevel::Idempotent => Idempotency::Idempotent,
                    IdempotencyLevel::IdempotencyUnknown => Idempotency::Unknown,
                };
                assert_eq!(verb.idempotency(), idempotency, "{label}");
                let accesses: &[Access] = match service.name() {
                    "Cache" => &[Access::Read, Access::Write, Access::ReadWrite],
                    "Admin" => &[Access::Operate],
                    _ => &[Access::Route],
                };
                assert!(accesses.contains(&verb.access()), "{label}");
                // What changes nothing needs no right to write.
                assert!(!(verb.writes() && idempotency == Idempotency::NoSideEffects), "{label}");
                verbs -= 1;
            }
        }
        assert_eq!(verbs, 0, "the table has what the contract has not");
        for (number, verb) in Verb::ALL.into_iter().enumerate() {
            assert_eq!(verb as usize, number);
        }
        assert_eq!(Verb::of_path("/grpc.health.v1.Health/Check"), Verb::Other);
        assert_eq!((Verb::Other.as_str(), Verb::Other.is_stream()), ("other", true));
    }

    #[test]
    fn a_request_of_one_or_many_keys_has_a_field_for_them() {
        let set = prost_types::FileDescriptorSet::decode(crate::proto::FILE_DESCRIPTOR_SET).unwrap();
        let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
        for method in set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method) {
            let name = method.input_type().rsplit('.').next().unwrap();
            let message = messages.iter().find(|message| message.name() == name).unwrap();
            let has_key = message.field.iter().any(|field| field.name() == "key");
            let verb = Verb::ALL.into_iter().find(|verb| verb.name() == method.name()).unwrap();
            // A blob's key comes in its stream's first part.
            let is_keyed = verb.keys() == Keys::One && verb != Verb::PutBlob;
            assert_eq!(has_key, is_keyed, "{}", method.name());
        }
    }

    #[test]
    fn the_books_service_config_retries_what_may_be_repeated() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/when-a-node-fails.md");
        // The package that is published has no book.
        let Ok(page) = std::fs::read_to_string(page) else { return };
        let json = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let config: serde_json::Value = serde_json::from_str(json).unwrap();
        let names = config["methodConfig"][0]["name"].as_array().unwrap();
        let named =
            names.iter().map(|name| format!("{}/{}", name["service"], name["method"]).replace('"', ""));
        // A blob that is sent would be kept to be sent again, and nothing answers Watch yet.
        let is_left_out = |verb: &Verb| matches!(verb, Verb::PutBlob | Verb::Watch);
        let may_repeat = Verb::ALL.into_iter().filter(|verb| {
            matches!(verb.access(), Access::Read | Access::Write)
                && verb.idempotency() != Idempotency::Unknown
        });
        let expected = may_repeat.filter(|verb| !is_left_out(verb)).map(Verb::as_str);
        assert_eq!(named.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
