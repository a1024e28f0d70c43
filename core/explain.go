package core

// routed notes what a route came to.
func (r *Recorder) routed(way *routes, m *Message, key string) {
	if r == nil {
		return
	}
	for _, s := range way.shards {
		for i := range s.targets {
			if s.targets[i].takes(m, key) {
				r.add("queue", s.targets[i].ref.name, "kept there until acknowledged")
			}
		}
		if s.name != "" {
			r.add("queue", s.name, "does not exist; a publish declares it")
		}
	}
	if way.gone {
		r.add("reply", m.Address.Topic, "the address is dead")
	} else if way.targets() == 0 {
		r.add("nobody", m.Address.String(), "no binding and no subscription matches")
	}
}
