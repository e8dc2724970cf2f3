//! Which way arrows point: the rooms of src/, and what each may know of the others.

/// Which room may know which other rooms, and of some only these names.
///
/// cli → node → server → service → cache → lookup → {persistence, engine} → entry; proto and grpc stand under all that speak gRPC.
pub(crate) const ARROWS: &[(&str, &[(&str, Only)])] = &[
    ("entry", &[]),
    ("endpoint", &[]),
    ("redacted", &[]),
    ("clock", &[]),
    // The contract: generated types, and the names of codes.
    ("proto", &[]),
    // What any gRPC server or client needs; it knows nothing of caches.
    ("grpc", &[("proto", ALL), ("quote", ALL)]),
    // What an error quotes of a caller, wherever it arises.
    ("quote", &[]),
    ("shortage", &[]),
    // Pure: which member owns a key.
    ("ring", &[]),
    // Who belongs to a cluster, and where that is written down.
    ("membership", &[("clock", ALL), ("endpoint", ALL), ("proto", Some(&["etcd"])), ("ring", ALL)]),
    // A node's place in it.
    ("cluster", &[("membership", ALL), ("ring", ALL)]),
    // The table of verbs; its tests compare it with the contract.
    ("verb", &[]),
    ("engine", &[("clock", ALL), ("entry", ALL), ("quote", ALL)]),
    // What a request to the caches says, and what is wrong with it: for the node, and for the cache in one's own process.
    (
        "request",
        &[
            ("engine", ENGINE_WORDS),
            ("entry", ALL),
            ("grpc", Some(&["Failure", "FailureFacts", "GrpcError"])),
            ("proto", ALL),
            ("quote", ALL),
        ],
    ),
    ("persistence", &[("clock", ALL), ("engine", ALL), ("entry", ALL), ("quote", ALL), ("shortage", ALL)]),
    // One future for what memory has not got, over its sources.
    ("lookup", &[("clock", ALL), ("engine", ALL), ("persistence", ALL)]),
    ("cache", &[("clock", ALL), ("engine", ALL), ("entry", ALL), ("lookup", ALL), ("persistence", ALL)]),
    (
        "service",
        &[
            ("cache", ALL),
            ("clock", ALL),
            // Configuration and figures, which Admin answers.
            ("config", Some(&["BadSetting", "Conflict", "LoadedConfig", "ServeConfig", "Setting", "Source"])),
            ("engine", ENGINE_WORDS),
            ("entry", ALL),
            ("grpc", ALL),
            // What an operation waits for, and goes on with.
            ("lookup", Some(&["AbandonedLoad", "Loaded", "Loading", "PendingLoad"])),
            ("proto", ALL),
            ("quote", ALL),
            ("request", ALL),
            ("cluster", Some(&["AdoptedRing", "CurrentRing"])),
            ("membership", Some(&["MemberState"])),
            // Where a key lies on every ring.
            ("ring", Some(&["Position"])),
            // Figures; what is kept of a slow call; the spans of a Pipeline's commands.
            (
                "telemetry",
                Some(&[
                    "NodeStats",
                    "CallDescription",
                    "CallSpan",
                    "CallTracer",
                    "SlowCalls",
                    "SlowOps",
                    "stripe_number",
                ]),
            ),
            ("verb", ALL),
        ],
    ),
    (
        "server",
        &[
            ("clock", ALL),
            ("endpoint", ALL),
            ("quote", ALL),
            ("redacted", ALL),
            ("shortage", ALL),
            ("telemetry", Some(&["CallMetrics", "Format"])),
        ],
    ),
    // Layers answer calls themselves, so they know how a call is answered.
    (
        "server/stack",
        &[
            ("clock", ALL),
            ("grpc", ALL),
            ("quote", ALL),
            ("telemetry", Some(&["CallMetrics", "CallDescription", "SlowCalls"])),
            ("verb", ALL),
        ],
    ),
    (
        "client",
        &[
            ("proto", ALL),
            ("ring", ALL),
            ("clock", ALL),
            ("endpoint", ALL),
            ("entry", ALL),
            ("grpc", ALL),
            ("redacted", ALL),
            ("verb", ALL),
        ],
    ),
    // Copies in the client's own process: the part of the client that knows the engine.
    ("client/near", &[("clock", ALL), ("engine", ALL), ("entry", ALL)]),
    // The engine behind the client's trait: the outcomes are the client's, what is refused is refused as by a node.
    (
        "local",
        &[
            ("client", ALL),
            ("clock", ALL),
            ("engine", ALL),
            ("entry", ALL),
            ("grpc", Some(&["Failure"])),
            ("proto", ALL),
            ("quote", ALL),
            ("request", ALL),
        ],
    ),
    (
        "config",
        &[
            // What a setting is in the contract's Config.
            ("proto", Some(&["FieldValue"])),
            ("endpoint", ALL),
            ("engine", Some(&["PolicyName", "UnknownPolicy"])),
            ("entry", ALL),
            ("persistence", Some(&["BackendKind", "RecoveryMethod"])),
            ("quote", ALL),
            ("redacted", ALL),
            // The bounds of an id.
            ("ring", Some(&["ID_BYTES_MAX"])),
        ],
    ),
    (
        "telemetry",
        &[
            ("clock", ALL),
            ("config", Some(&["LogFormat"])),
            // The trace that a call belongs to.
            ("grpc", Some(&["traceparent"])),
            // The names of status codes, as labels.
            ("proto", Some(&["code_name"])),
            ("redacted", ALL),
            ("engine", Some(&["MissReason", "NamespaceReport", "PolicyEstimate", "PolicyName", "Stats"])),
            ("verb", ALL),
        ],
    ),
    // Puts everything together, and knows nothing of the command line or the client.
    (
        "node",
        &[
            ("cache", ALL),
            ("clock", ALL),
            ("config", ALL),
            ("engine", Some(&["EngineConfig"])),
            ("endpoint", ALL),
            ("entry", ALL),
            ("persistence", ALL),
            ("proto", ALL),
            ("cluster", ALL),
            ("membership", ALL),
            ("ring", ALL),
            ("server", ALL),
            ("service", ALL),
            ("telemetry", ALL),
        ],
    ),
    (
        "cli",
        &[
            ("client", ALL),
            ("clock", ALL),
            ("config", ALL),
            ("endpoint", ALL),
            ("entry", ALL),
            // The load reads messages where they lie.
            ("grpc", Some(&["frame"])),
            ("node", ALL),
            ("proto", ALL),
            ("quote", ALL),
            ("redacted", ALL),
            ("server", Some(&["StartError", "Stop"])),
            ("telemetry", Some(&["log"])),
        ],
    ),
];

pub(crate) type Only = Option<&'static [&'static str]>;
const ALL: Only = None;
/// What operations, outcomes and policies are called; not the engine itself.
const ENGINE_WORDS: Only = Some(&[
    "BYTES_LIMIT_MIN",
    "Condition",
    "EntryView",
    "Event",
    "EventConfig",
    "EventScope",
    "Expiration",
    "Explanation",
    "HotKey",
    "HotKeys",
    "Increment",
    "Memory",
    "MissReason",
    "Namespace",
    "NamespaceChange",
    "NamespaceConfig",
    "NamespaceError",
    "NamespaceReport",
    "NotRead",
    "Op",
    "Outcome",
    "PolicyEstimate",
    "PolicyName",
    "Refusal",
    "ScanCursor",
    "ScanRange",
    "Scope",
    "Set",
    "Stats",
    "Tier",
    "UnknownPolicy",
    "ValueView",
]);
