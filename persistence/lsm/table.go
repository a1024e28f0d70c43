package lsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// checkTables reads the tables before Badger does. Badger panics over one that
// is too short. In a table with a damaged block it finds nothing there and
// behind it, in a Get, in a Scan, and in a compaction, which then makes it so
// for good; and it tells nobody. So indices are checked, and of the blocks all
// but those in which the caller would notice that something is missing.
func (db *DB) checkTables() error {
	ids, size, err := db.manifestTables()
	if err != nil {
		return err
	}
	db.ledger.start(db.dir, ids, size)
	db.recovered.Checked = 0
	var buf []byte
	for _, id := range ids {
		name := table.NewFilename(id, db.dir)
		n, err := checkTable(name, db.bulk, &buf)
		if err != nil {
			return corrupt("the table %s is damaged: %v; %s", filepath.Base(name), err, advice(db.dir))
		}
		db.recovered.Checked += n
	}
	db.recovered.Tables = len(ids)
	db.log.Debug("checked the tables", slog.Int("tables", len(ids)), slog.Int64("octets", db.recovered.Checked))
	return nil
}

// Check reads all tables, of a database that is open, and says which is
// damaged. It takes as long as reading all of it does; a table that a
// compaction removes meanwhile is passed over.
func (db *DB) Check() error {
	if err := db.reading.enter(); err != nil {
		return err
	}
	defer db.reading.leave()
	var buf []byte
	for _, t := range db.b.Tables() {
		if err := db.reading.end(); err != nil {
			return err
		}
		name := table.NewFilename(t.ID, db.dir)
		if _, err := checkTable(name, nil, &buf); err != nil && !gone(name) {
			return corrupt("the table %s is damaged: %v; %s", filepath.Base(name), err, advice(db.dir))
		}
	}
	return nil
}

// gone says whether a file was removed, or is being.
func gone(name string) bool {
	st, err := os.Stat(name)
	return errors.Is(err, os.ErrNotExist) || err == nil && st.Size() == 0
}

// manifestTables are the tables that Badger is going to open, and how long the
// manifest that names them is.
func (db *DB) manifestTables() (ids []uint64, size int64, err error) {
	f, err := os.Open(filepath.Join(db.dir, badger.ManifestFilename))
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	m, size, err := badger.ReplayManifestFile(f, 0, db.sizes.options(db.dir, badgerLog{db}))
	if err != nil {
		return nil, 0, corrupt("the list of its tables, MANIFEST, is damaged: %v; %s", err, advice(db.dir))
	}
	for id := range m.Tables {
		ids = append(ids, id)
	}
	return ids, size, nil
}

// checkTable checks one table and says how many octets it read. buf is kept
// for the next.
//
//	blocks | index | index length u32 | checksum | checksum length u32
//	block: entries | their places | number u32 | checksum | checksum length u32
func checkTable(name string, bulk [][]byte, buf *[]byte) (read int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	r := tableReader{f: f, buf: buf}
	index, err := r.index(st.Size())
	if err != nil {
		return r.read, fmt.Errorf("its index: %w", err)
	}
	var block, after fb.BlockOffset
	for i := range index.OffsetsLength() {
		index.Offsets(&block, i)
		if i+1 < index.OffsetsLength() && index.Offsets(&after, i+1) && sameBulk(block.KeyBytes(), after.KeyBytes(), bulk) {
			continue
		}
		if err := r.block(int64(block.Offset()), int64(block.Len())); err != nil {
			return r.read, fmt.Errorf("at octet %d: %w", block.Offset(), err)
		}
	}
	return r.read, nil
}

// sameBulk says whether two keys, and so all between, have one prefix of bulk.
func sameBulk(from, to []byte, bulk [][]byte) bool {
	for _, p := range bulk {
		if hasAny(from, [][]byte{p}) {
			return hasAny(to, [][]byte{p})
		}
	}
	return false
}

// A tableReader reads pieces of a table into one buffer.
type tableReader struct {
	f    *os.File
	buf  *[]byte
	read int64
}

var errShort = errors.New("it is too short")

// piece reads n octets that end at end. Every length is checked against the
// size of the file before it is asked for.
func (r *tableReader) piece(end, n int64) ([]byte, error) {
	if n < 0 || n > end {
		return nil, errShort
	}
	if int64(cap(*r.buf)) < n {
		*r.buf = make([]byte, n)
	}
	b := (*r.buf)[:n]
	if _, err := r.f.ReadAt(b, end-n); err != nil {
		if errors.Is(err, io.EOF) {
			err = errShort
		}
		return nil, err
	}
	r.read += n
	return b, nil
}

// number reads a length that ends at end.
func (r *tableReader) number(end int64) (int64, error) {
	b, err := r.piece(end, 4)
	if err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint32(b)), nil
}

// index reads and checks the index of a table of so many octets. It is a copy.
func (r *tableReader) index(size int64) (*fb.TableIndex, error) {
	n, err := r.number(size)
	if err != nil {
		return nil, err
	}
	sum, err := r.piece(size-4, n)
	if err != nil {
		return nil, err
	}
	sum = append([]byte(nil), sum...)
	end := size - 4 - n
	if n, err = r.number(end); err != nil {
		return nil, err
	}
	data, err := r.piece(end-4, n)
	if err != nil {
		return nil, err
	}
	if err := checkSum(data, sum); err != nil {
		return nil, err
	}
	if len(data) < 8 {
		return nil, errShort
	}
	index := fb.GetRootAsTableIndex(append([]byte(nil), data...), 0)
	if index.OffsetsLength() == 0 {
		return nil, errors.New("it names no block")
	}
	return index, nil
}

// block checks one block.
func (r *tableReader) block(offset, n int64) error {
	b, err := r.piece(offset+n, n)
	if err != nil {
		return err
	}
	if len(b) < 4 {
		return errShort
	}
	sum := int64(binary.BigEndian.Uint32(b[len(b)-4:]))
	end := int64(len(b)) - 4 - sum
	if end < 0 {
		return errShort
	}
	return checkSum(b[:end], b[end:len(b)-4])
}

// checkSum compares with a checksum as Badger writes it.
func checkSum(data, sum []byte) error {
	var c pb.Checksum
	if err := proto.Unmarshal(sum, &c); err != nil {
		return fmt.Errorf("its checksum: %w", err)
	}
	switch c.GetAlgo() {
	case pb.Checksum_CRC32C, pb.Checksum_XXHash64:
	default:
		return fmt.Errorf("its checksum is of an unknown kind, %d", c.GetAlgo())
	}
	if y.CalculateChecksum(data, c.GetAlgo()) != c.GetSum() {
		return errors.New("its checksum is another one")
	}
	return nil
}
