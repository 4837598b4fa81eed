//! A guest at a disk: headers, ranges and buffers of any content and length, one after the other,
//! beside a model of the disk. Statuses and data are the model's; nothing else of the file or of the
//! guest's memory changes.
#![no_main]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::Parser;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard_block::cli::Cli;
use outboard_fuzz::{Buffer, Guest, Number};

const SIZE: u64 = 64 << 10;
const SECTOR: u64 = 512;

#[derive(Debug, Arbitrary)]
struct Life {
    readonly: bool,
    requests: Vec<Request>,
}

#[derive(Debug, Arbitrary)]
struct Request {
    kind: Kind,
    sector: Number,
    /// Of data, in sectors; and as many bytes too many.
    sectors: u8,
    odd: Option<u8>,
    fill: u8,
    ranges: Vec<(Number, Number, u8)>,
    /// Where the readable and the writable bytes are cut into buffers.
    cuts: [u8; 4],
    /// The header is so long only.
    header: Option<u8>,
    no_status: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Arbitrary)]
enum Kind {
    Read,
    Write,
    Flush,
    Id,
    Discard,
    Zero,
    Other(u32),
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 4,
            Self::Id => 8,
            Self::Discard => 11,
            Self::Zero => 13,
            Self::Other(number) => number,
        }
    }

    fn of(number: u32) -> Self {
        let known = [
            Self::Read,
            Self::Write,
            Self::Flush,
            Self::Id,
            Self::Discard,
            Self::Zero,
        ];
        let found = known.into_iter().find(|kind| kind.number() == number);
        found.unwrap_or(Self::Other(number))
    }
}

/// Cuts bytes into buffers.
fn cut<T>(len: usize, cuts: &[u8], part: impl Fn(std::ops::Range<usize>) -> T) -> Vec<T> {
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| usize::from(*cut) * 7 % (len + 1))
        .collect();
    places.extend([0, len]);
    places.sort_unstable();
    places
        .windows(2)
        .filter(|pair| pair[0] < pair[1])
        .map(|pair| part(pair[0]..pair[1]))
        .collect()
}

static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| format!("/dev/shm/outboard-fuzz-{}.img", std::process::id()).into());

/// What the disk must hold after a request, and what its status may be; `None` for any status.
fn model(
    disk: &mut [u8],
    request: &Request,
    bytes: &[u8],
    room: u64,
    readonly: bool,
) -> Option<u8> {
    let (header, data) = bytes.split_first_chunk::<16>()?;
    let kind = Kind::of(u32::from_le_bytes(header[..4].try_into().unwrap()));
    let within = |sector: u64, len: u64| {
        let start = sector.checked_mul(SECTOR)?;
        let end = start.checked_add(len).filter(|end| *end <= SIZE)?;
        len.is_multiple_of(SECTOR)
            .then_some(start as usize..end as usize)
    };
    let sector = u64::from_le_bytes(header[8..].try_into().unwrap());
    match kind {
        Kind::Read => Some(u8::from(within(sector, room).is_none())),
        Kind::Write => match within(sector, data.len() as u64).filter(|_| !readonly) {
            Some(place) => {
                disk[place].copy_from_slice(data);
                Some(0)
            }
            None => Some(1),
        },
        Kind::Flush | Kind::Id => Some(0),
        // A device may refuse more, but not less, than is asked here.
        Kind::Discard | Kind::Zero => {
            let mut sound = !data.is_empty() && data.len().is_multiple_of(16) && !readonly;
            let mut places = Vec::new();
            for range in data.chunks_exact(16) {
                let sector = u64::from_le_bytes(range[..8].try_into().unwrap());
                let sectors = u32::from_le_bytes(range[8..12].try_into().unwrap());
                let flags = u32::from_le_bytes(range[12..].try_into().unwrap());
                let allowed = u32::from(kind == Kind::Zero);
                match within(sector, u64::from(sectors) * SECTOR) {
                    Some(place) if flags & !allowed == 0 => places.push(place),
                    _ => sound = false,
                }
            }
            if !sound || places.len() > 16 {
                return Some(0xfe);
            }
            places.into_iter().for_each(|place| disk[place].fill(0));
            Some(0)
        }
        Kind::Other(_) => {
            let _ = request;
            Some(2)
        }
    }
}

fuzz_target!(|life: Life| {
    let mut disk: Vec<u8> = (0..SIZE).map(|at| (at / 256 + 1) as u8).collect();
    fs::write(&*PATH, &disk).unwrap();
    let path = format!("--path={}", PATH.display());
    let readonly = life.readonly.then_some("--readonly");
    let args = ["outboard-block", "--fd=0", "--serial=fuzzed", &path];
    let device = Cli::parse_from(args.into_iter().chain(readonly))
        .disk()
        .unwrap();
    let file = fs::File::open(&*PATH).unwrap();
    let _ = fs::remove_file(&*PATH);
    let mut guest = Guest::new(device, 1);
    for request in life.requests.iter().take(20) {
        let len = usize::from(request.sectors % 40) * SECTOR as usize;
        let len = len + usize::from(request.odd.unwrap_or(0));
        let mut bytes = request.kind.number().to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(request.sector.0.to_le_bytes());
        let mut room = usize::from(!request.no_status);
        match request.kind {
            Kind::Write => bytes.extend(vec![request.fill; len]),
            Kind::Discard | Kind::Zero => {
                for (sector, sectors, flags) in request.ranges.iter().take(20) {
                    bytes.extend(sector.0.to_le_bytes());
                    bytes.extend((sectors.0 as u32).to_le_bytes());
                    bytes.extend(u32::from(*flags & 3).to_le_bytes());
                }
                bytes.extend(vec![0; usize::from(request.odd.unwrap_or(0) % 16)]);
            }
            Kind::Id => room += 20,
            _ => room += len,
        }
        if let Some(header) = request.header {
            bytes.truncate(usize::from(header % 18));
        }
        let [a, b, c, d] = request.cuts;
        let mut buffers = cut(bytes.len(), &[a, b], |at| {
            Buffer::Readable(bytes[at].to_vec())
        });
        buffers.extend(cut(room, &[c, d], |at| Buffer::Writable(at.len())));
        if buffers.is_empty() {
            continue;
        }
        let Some((chain, writable)) = guest.chain(&buffers) else {
            break;
        };
        let written = guest.ask(0, &chain);
        let answer = guest.read(&writable);
        if let Some((status, data)) = answer.split_last() {
            let before = disk.clone();
            let wanted = model(&mut disk, request, &bytes, data.len() as u64, life.readonly);
            match wanted {
                Some(0xfe) => assert_ne!(*status, 0, "what makes no sense was done"),
                Some(wanted) if request.kind != Kind::Other(0) => {
                    // A read-only disk may not know how to discard at all.
                    assert!(
                        *status == wanted || life.readonly && *status != 0,
                        "{request:?}"
                    );
                }
                _ => {}
            }
            if bytes.len() >= 16 && bytes[..4] == [0; 4] && *status == 0 {
                let start =
                    (u64::from_le_bytes(bytes[8..16].try_into().unwrap()) * SECTOR) as usize;
                assert_eq!(
                    data,
                    &before[start..start + data.len()],
                    "other data was read"
                );
            }
            if *status != 0 {
                disk = before;
            }
            assert!(written as usize <= answer.len());
        }
        let mut now = vec![0; SIZE as usize];
        file.read_exact_at(&mut now, 0).unwrap();
        let strayed = now.iter().zip(&disk).position(|(now, model)| now != model);
        assert_eq!(
            strayed, None,
            "the disk is not what it must be after {request:?}"
        );
    }
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    guest.end();
});
