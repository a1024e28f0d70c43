package transport

import "sync"

// Read buffers come in three sizes that are lent and given back; larger ones
// are made for one frame and dropped.
const (
	small  = 16 << 10
	medium = 32 << 10
	large  = 64 << 10
	// keep is how many unfinished bytes are worth a lent buffer while the
	// connection waits; fewer move into a buffer of their own size, so that
	// many clients who send little cannot make us hold much.
	keep = small / 8
)

// Arrays, because a pointer to one goes into a pool without an allocation.
var (
	smalls  = sync.Pool{New: func() any { return new([small]byte) }}
	mediums = sync.Pool{New: func() any { return new([medium]byte) }}
	larges  = sync.Pool{New: func() any { return new([large]byte) }}
)

func lend(size int) []byte {
	switch {
	case size <= small:
		return smalls.Get().(*[small]byte)[:0]
	case size <= medium:
		return mediums.Get().(*[medium]byte)[:0]
	case size <= large:
		return larges.Get().(*[large]byte)[:0]
	}
	return make([]byte, 0, size)
}

func giveBack(b []byte) {
	switch cap(b) {
	case small:
		smalls.Put((*[small]byte)(b[:small]))
	case medium:
		mediums.Put((*[medium]byte)(b[:medium]))
	case large:
		larges.Put((*[large]byte)(b[:large]))
	}
}

// An input is what was read and not taken yet. It holds a buffer only while
// there are such bytes, or while its reader is at work.
type input struct {
	buf []byte
	off int // buf[off:] is not taken
}

func (in *input) bytes() []byte { return in.buf[in.off:] }
func (in *input) len() int      { return len(in.buf) - in.off }
func (in *input) took(n int)    { in.off += n }
func (in *input) filled(n int)  { in.buf = in.buf[:len(in.buf)+n] }

// room returns space to read into. A frame that nearly fills its buffer gets
// one of twice the size, so beyond the lent sizes less is held than four times
// what was received.
func (in *input) room() []byte {
	switch have := in.len(); {
	case have == 0 && cap(in.buf) >= small && cap(in.buf) <= large:
		in.buf, in.off = in.buf[:0], 0
	case have == 0:
		in.move(lend(small))
	case cap(in.buf) < small:
		in.move(lend(max(small, 2*have)))
	case cap(in.buf)-len(in.buf) < cap(in.buf)/4:
		if have > cap(in.buf)/2 {
			in.move(lend(2 * cap(in.buf)))
		} else {
			in.buf, in.off = in.buf[:copy(in.buf, in.bytes())], 0
		}
	}
	return in.buf[len(in.buf):cap(in.buf)]
}

// rest gives back what a waiting connection need not hold.
func (in *input) rest() {
	switch have := in.len(); {
	case have == 0:
		giveBack(in.buf)
		in.buf, in.off = nil, 0
	case cap(in.buf) <= keep || have >= cap(in.buf)/8:
	case have < keep:
		in.move(make([]byte, 0, have))
	default:
		in.move(lend(have))
	}
}

// move goes on in another buffer.
func (in *input) move(to []byte) {
	to = append(to, in.bytes()...)
	giveBack(in.buf)
	in.buf, in.off = to, 0
}
