//! What came from a server that was asked. Its bytes may be anything, and from anybody.

use hickory_proto::op::{Header, MessageType, Query, ResponseCode};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};

use super::query::Forward;

/// What a reply is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It isn't a reply to this query: it came late, or from a liar. The true one may follow.
    Foreign,
    /// The server doesn't know, doesn't want to, or can't speak.
    Useless,
    /// There is more than fits a datagram.
    Truncated,
    /// The answer, whatever it says.
    Final,
}

/// Judges a reply to what was asked under `id`.
pub(super) fn judge(query: &Forward, id: u16, reply: &[u8]) -> Worth {
    if !reply.starts_with(&id.to_be_bytes()) {
        return Worth::Foreign;
    }
    let mut decoder = BinDecoder::new(reply);
    let Ok(header) = Header::read(&mut decoder) else { return Worth::Useless };
    if header.message_type != MessageType::Response || header.op_code != query.metadata.op_code {
        return Worth::Useless;
    }
    let failure = header.response_code != ResponseCode::NoError;
    match header.counts.queries {
        1 => match Query::read(&mut decoder) {
            Ok(question) if !repeats(&question, &query.question) => return Worth::Foreign,
            Ok(_) => {}
            Err(_) => return Worth::Useless,
        },
        // A server that couldn't read the question needn't repeat it.
        0 if failure => {}
        _ => return Worth::Useless,
    }
    if matches!(header.response_code, ResponseCode::ServFail | ResponseCode::Refused) {
        return Worth::Useless;
    }
    // Some cut in the middle of a record.
    if header.truncation {
        return Worth::Truncated;
    }
    let counts = [header.counts.answers, header.counts.authorities, header.counts.additionals];
    let records = counts.into_iter().map(u32::from).sum();
    if skip(&mut decoder, records).is_ok() { Worth::Final } else { Worth::Useless }
}

/// Letters' cases aside: a server may answer in small letters.
fn repeats(question: &Query, asked: &Query) -> bool {
    question.query_type() == asked.query_type()
        && question.query_class() == asked.query_class()
        && question.name() == asked.name()
}

/// Goes over records whose contents don't concern us: a type that is new to us must still pass.
fn skip(decoder: &mut BinDecoder<'_>, records: u32) -> Result<(), DecodeError> {
    for _ in 0..records {
        Name::read(decoder)?;
        // Type, class, TTL.
        decoder.read_slice(8)?;
        let length = decoder.read_u16()?.unverified();
        decoder.read_slice(usize::from(length))?;
    }
    Ok(())
}
