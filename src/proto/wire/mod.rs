//! Protobuf's bytes, read and written with no message in between: for what is hot, on the node and in the client.
//!
//! ```text
//!  field     key: varint of number << 3 | wire type, then its content
//!  0 varint  ≤ 10 bytes of 7 bits, the low ones first       1 fixed64  8 bytes, little-endian
//!  2 bytes   varint of the length, then its bytes           5 fixed32  4 bytes
//!  3, 4      begin and end of a group: skipped
//!
//!  PipelineRequest    2 command…   1 id   4 get 5 set 6 delete 7 increment 8 decrement 9 touch 10 cancel
//!  PipelineResponse   1 reply…     1 id   2 owner   3 get 4 set 5 delete 6 increment 7 decrement 8 touch 9 error
//! ```
//!
//! Compatible with the generated types to the letter: unknown fields are skipped, the last value of a field counts, text
//! must be UTF-8, a wrong wire type is malformed. What a field means is its reader's: a node refuses a known field of a
//! wrong type, the client passes it over.
//!
//! One thing can be stricter: a request has at most [`FIELDS_MAX`] fields beside the items of a batch, known or not, so that
//! none takes long to read however long it is. A client's library writes each field once; what the contract may have
//! more of one day finds room. An answer is read [without that limit](Reader::unlimited): its caller chose the node.

mod read;
mod write;

// All of both: a build of the client alone needs less than the node, and no list of names would fit the two.
pub(crate) use read::*;
pub(crate) use write::*;

/// Field numbers of PipelineCommand's oneof `op`.
pub(crate) mod op {
    pub(crate) const GET: u32 = 4;
    pub(crate) const SET: u32 = 5;
    pub(crate) const DELETE: u32 = 6;
    pub(crate) const INCREMENT: u32 = 7;
    pub(crate) const DECREMENT: u32 = 8;
    pub(crate) const TOUCH: u32 = 9;
    pub(crate) const CANCEL: u32 = 10;
}

/// Field numbers of PipelineReply's oneof `result`.
pub(crate) mod result {
    pub(crate) const GET: u32 = 3;
    pub(crate) const SET: u32 = 4;
    pub(crate) const DELETE: u32 = 5;
    pub(crate) const INCREMENT: u32 = 6;
    pub(crate) const DECREMENT: u32 = 7;
    pub(crate) const TOUCH: u32 = 8;
    pub(crate) const ERROR: u32 = 9;

    /// A result's field, which is one below its op's.
    pub(crate) const fn of_op(op: u32) -> u32 {
        op - 1
    }
}

#[cfg(test)]
mod tests;
