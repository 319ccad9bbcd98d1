// Package kmipkeys makes keys in a KMIP server as a mongod or an Ops Manager
// does, and the certificates that servers and clients need for that.
package kmipkeys
