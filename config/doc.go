// Package config is Godwit's one document: it puts each room's own Options
// together, reads them from a YAML file, and says everything that is wrong with
// the file at once.
//
//	file -> goccy/go-yaml's tree -> decoder -> Config -> Validate -> cmd
//	                                   \___________________/
//	                                    Faults: file, line, key, what would be right
//
// The file is read strictly: a key that nobody knows, or one that stands there
// twice, is a fault and never a surprise. Keys are the names of the Options'
// fields in snake case, so a room that gains an option has it in the file, and
// nobody keeps a second list. The rooms know nothing of this package.
package config
