//! Matrices from store to store.

use std::convert::Infallible;

use futures_util::stream;

use super::*;

#[tokio::test]
async fn a_matrix_goes_from_store_to_store() {
    let (from, to) = (Place::new(), Place::new());
    let (sender, receiver) = (from.open(), to.open());
    let sent = sender
        .import(&from.npy(600, 300), Format::Npy, ReadOptions::default())
        .await
        .unwrap();
    for _ in 0..2 {
        let received = receiver
            .import_blocks(sender.export_blocks(sent.id()), None)
            .await
            .unwrap();
        assert_eq!(received, sent);
        assert_eq!(to.block_files().len(), 1);
    }
    let file = export(&receiver, sent.id(), Format::Npy).await;
    assert!(file == std::fs::read(from.npy(600, 300)).unwrap());
    // In pieces of another size too.
    let bytes = whole(&sender, sent.id()).await;
    let third = Place::new();
    let pieces = bytes
        .chunks(77_777)
        .map(|piece| Ok::<_, Infallible>(piece.to_vec().into()));
    let received = third
        .open()
        .import_blocks(stream::iter(pieces.collect::<Vec<_>>()), Some(sent.id()))
        .await;
    assert_eq!(received, Ok(sent));
}

#[tokio::test]
async fn a_stream_that_is_not_what_it_says_is_refused() {
    let (from, to) = (Place::new(), Place::new());
    let (sender, receiver) = (from.open(), to.open());
    let values = json!([["1", "-36893488147419103232"], [3, 4]]);
    let sent = sender
        .import_values(values.clone(), Some(Dtype::Int))
        .await
        .unwrap();
    let bytes = whole(&sender, sent.id()).await;
    let check = async |bytes: Vec<u8>| {
        let pieces = [Ok::<_, Infallible>(Bytes::from(bytes))];
        let error = receiver
            .import_blocks(stream::iter(pieces), None)
            .await
            .unwrap_err();
        assert!([413, 422].contains(&error.status), "{error:?}");
        assert!(to.block_files().is_empty());
    };
    for len in 0..bytes.len() {
        check(bytes[..len].to_vec()).await;
    }
    let blocks = bytes.len() - sent.bytes() as usize;
    for at in (0..4).chain(blocks..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        check(flipped).await;
    }
    for lie in [
        Manifest {
            bits: 65,
            ..sent.clone()
        },
        Manifest {
            bits: 67,
            ..sent.clone()
        },
        Manifest {
            rows: 1 << 32,
            cols: 1 << 32,
            ..sent.clone()
        },
        Manifest {
            rows: 0,
            ..sent.clone()
        },
        Manifest {
            blocks: vec![],
            ..sent.clone()
        },
        Manifest {
            element: ElementType {
                dtype: Dtype::F64,
                limbs: 1,
            },
            ..sent.clone()
        },
    ] {
        let manifest = pack(&lie);
        let head = [&(manifest.len() as u32).to_be_bytes()[..], &manifest].concat();
        check([&head, &bytes[blocks..]].concat()).await;
    }
    let broken = stream::iter([Ok(Bytes::from(bytes[..20].to_vec())), Err("gone")]);
    let error = receiver.import_blocks(broken, None).await.unwrap_err();
    assert!(error.message.contains("gone"));
    assert_eq!(receiver.disk_used(), 0);
    let other = Some(MatrixId([0; 32]));
    let error = receiver
        .import_blocks(sender.export_blocks(sent.id()), other)
        .await
        .unwrap_err();
    assert!(error.message.contains("another matrix"));
    let unknown: Vec<_> = receiver.export_blocks(sent.id()).collect().await;
    assert!(matches!(unknown[..], [Err(StoreError::Missing { .. })]));
}

async fn whole(store: &Store, id: MatrixId) -> Vec<u8> {
    let pieces: Vec<_> = store.export_blocks(id).collect().await;
    pieces
        .into_iter()
        .map(Result::unwrap)
        .collect::<Vec<_>>()
        .concat()
}
