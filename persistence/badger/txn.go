package badger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"

	"github.com/dgraph-io/badger/v4"
)

// A txn is what will be written, all or nothing. The last word on a key wins.
type txn struct {
	entries []entry
	bytes   int64

	maxEntries, maxBytes int64 // what is room, of a transaction of Badger's
}

// An entry is a key and its value; a nil value deletes.
type entry struct{ key, value []byte }

// entryOverhead is what Badger counts for an entry beside key and value.
const entryOverhead = 12

func (t *txn) put(key, value []byte) {
	t.entries = append(t.entries, entry{key, value})
	t.bytes += int64(len(key)+len(value)) + entryOverhead
}

func (t *txn) del(key []byte) { t.put(key, nil) }

func (t *txn) reset() {
	clear(t.entries)
	t.entries, t.bytes = t.entries[:0], 0
}

// room says whether there is room for some more small entries.
func (t *txn) room() bool {
	return int64(len(t.entries)) < t.maxEntries && t.bytes < t.maxBytes
}

// write makes t durable. What is too large for one transaction of Badger's
// goes the long way.
func (s *store) write(t *txn) error {
	if len(t.entries) == 0 {
		return nil
	}
	if s.beforeWrite != nil {
		if err := s.beforeWrite(); err != nil {
			return err
		}
	}
	var err error
	most := s.db.MaxBatchCount() * 9 / 10
	if n := int64(s.profile.txnEntries); n > 0 {
		most = n
	}
	if int64(len(t.entries)) < most && t.bytes < s.db.MaxBatchSize()*9/10 {
		err = s.writeOnce(t.entries)
	} else {
		err = s.writeLong(t)
	}
	if err == nil {
		err = s.syncer.sync()
	}
	s.wal.renew()
	return err
}

// writeOnce writes one transaction of Badger's and waits for its sync.
func (s *store) writeOnce(entries []entry) error {
	tx := s.db.NewTransaction(true)
	defer tx.Discard()
	for i := range entries {
		e := &entries[i]
		var err error
		if e.value == nil {
			err = tx.Delete(e.key)
		} else {
			err = tx.Set(e.key, e.value)
		}
		if err != nil {
			return fmt.Errorf("fill a transaction of %d entries: %w", len(entries), err)
		}
		s.counts.written.Add(int64(len(e.key) + len(e.value)))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write a transaction of %d entries: %w", len(entries), err)
	}
	s.counts.syncs.Add(1)
	return nil
}

// writeLong writes what is larger than a transaction of Badger's, and still
// all or nothing: first a list of what is to be done, in as many transactions
// as it takes; then its seal, with which it is durable; then it does what the
// list says. A crash after the seal does it again, one before forgets the
// list. Until the seal nothing of it can be seen.
func (s *store) writeLong(t *txn) error {
	chunks, sum := redoChunks(t.entries)
	list := make([]entry, len(chunks))
	for i, c := range chunks {
		list[i] = entry{redoKey(uint32(i)), c}
	}
	if err := s.writeParts(list); err != nil {
		return err
	}
	if err := s.writeOnce([]entry{{redoKey(redoSeal), sealOf(len(chunks), sum)}}); err != nil {
		return err
	}
	if err := s.writeParts(t.entries); err != nil {
		return err
	}
	return s.dropRedo(len(chunks))
}

// dropRedo removes a list that was done, its seal first.
func (s *store) dropRedo(chunks int) error {
	if err := s.writeOnce([]entry{{redoKey(redoSeal), nil}}); err != nil {
		return err
	}
	list := make([]entry, chunks)
	for i := range list {
		list[i].key = redoKey(uint32(i))
	}
	return s.writeParts(list)
}

// writeParts writes entries in transactions as large as Badger takes them.
func (s *store) writeParts(entries []entry) error {
	maxCount, maxBytes := s.db.MaxBatchCount()*8/10, s.db.MaxBatchSize()*8/10
	for len(entries) > 0 {
		n, bytes := 0, int64(0)
		for n < len(entries) && int64(n) < maxCount {
			bytes += int64(len(entries[n].key)+len(entries[n].value)) + entryOverhead
			if n > 0 && bytes > maxBytes {
				break
			}
			n++
		}
		if err := s.writeOnce(entries[:n]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// A redo list at rest, version 1: chunks of one long value, in which each
// entry is key length | key | value length + 1, or 0 to delete | value; the
// seal is version byte | chunks | crc32c of the value, little-endian.
const redoVersion = 1

func redoChunks(entries []entry) (chunks [][]byte, sum uint32) {
	var list []byte
	for i := range entries {
		e := &entries[i]
		list = binary.AppendUvarint(list, uint64(len(e.key)))
		list = append(list, e.key...)
		if e.value == nil {
			list = append(list, 0)
			continue
		}
		list = binary.AppendUvarint(list, uint64(len(e.value))+1)
		list = append(list, e.value...)
	}
	sum = crc32.Checksum(list, castagnoli)
	for len(list) > 0 {
		n := min(len(list), pieceBytes)
		chunks = append(chunks, list[:n:n])
		list = list[n:]
	}
	return chunks, sum
}

func sealOf(chunks int, sum uint32) []byte {
	b := binary.AppendUvarint([]byte{redoVersion}, uint64(chunks))
	return binary.LittleEndian.AppendUint32(b, sum)
}

func decodeRedo(list []byte) (entries []entry, err error) {
	r := reader{b: list}
	for len(r.b) > 0 {
		e := entry{key: r.bytes()}
		if n := r.number(); n > uint64(len(r.b))+1 {
			r.fail(errShort)
		} else if n > 0 {
			e.value, r.b = r.b[:n-1:n-1], r.b[n-1:]
		}
		if r.err == nil {
			entries = append(entries, e)
		}
	}
	return entries, r.err
}

// finishRedo does what a sealed list says, and removes a list without a seal.
func (s *store) finishRedo() error {
	chunks, err := s.redoStored()
	if err != nil {
		return err
	}
	seal, err := s.get(redoKey(redoSeal))
	if errors.Is(err, badger.ErrKeyNotFound) {
		if chunks > 0 {
			s.log.Info("removing a batch that was not confirmed", slog.Int("chunks", chunks))
		}
		return s.dropRedo(chunks)
	}
	if err != nil {
		return err
	}
	r := version(seal, "redo list", redoVersion)
	n := r.number()
	if r.err != nil || len(r.b) != 4 {
		return fmt.Errorf("the seal of the redo list is damaged (%w): restore a backup", errors.Join(r.err, errShort))
	}
	sum := binary.LittleEndian.Uint32(r.b)
	var list []byte
	for i := range n {
		chunk, err := s.get(redoKey(uint32(i)))
		if err != nil {
			return fmt.Errorf("chunk %d of %d of the redo list is missing: restore a backup: %w", i, n, err)
		}
		list = append(list, chunk...)
	}
	entries, err := decodeRedo(list)
	if err != nil || crc32.Checksum(list, castagnoli) != sum {
		return fmt.Errorf("the redo list is damaged: restore a backup: %w", errors.Join(err, errors.New("its checksum is another one")))
	}
	s.log.Info("finishing a large batch that a crash interrupted", slog.Int("entries", len(entries)))
	if err := s.writeParts(entries); err != nil {
		return err
	}
	return s.dropRedo(chunks)
}

// redoStored is one more than the highest chunk there is.
func (s *store) redoStored() (chunks int, err error) {
	err = s.scan([]byte{kindRedo}, false, func(key, _ []byte) error {
		if n := binary.BigEndian.Uint32(key[1:]); n != redoSeal {
			chunks = int(n) + 1
		}
		return nil
	})
	return chunks, err
}

// scan goes through all keys with a prefix, in order. key and value are only
// lent.
func (s *store) scan(prefix []byte, values bool, each func(key, value []byte) error) error {
	return s.db.View(func(tx *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix, o.PrefetchValues = prefix, false
		it := tx.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.ValidForPrefix(prefix); it.Next() {
			item := it.Item()
			if !values {
				if err := each(item.Key(), nil); err != nil {
					return err
				}
				continue
			}
			if err := item.Value(func(v []byte) error { return each(item.Key(), v) }); err != nil {
				return err
			}
		}
		return nil
	})
}
