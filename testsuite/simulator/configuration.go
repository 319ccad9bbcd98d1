package simulator

import (
	"fmt"
	"strconv"
	"strings"
)

// PlantedConfigSecret begins every secret of a deployment's configuration:
// whatever is tested must neither log nor keep one.
const PlantedConfigSecret = "planted-secret-of-the-automation-configuration"

// previousRotation is the time of every second process of a new deployment.
const previousRotation = `"2025-06-01T03:00:00Z"`

// newConfiguration writes the automation configuration of a deployment. At every
// level it has fields that nobody knows, numbers that change when they are decoded
// and encoded, escaped names, and secrets.
func newConfiguration(d *deploymentRecord) []byte {
	var b strings.Builder
	b.WriteString(`{"uiBaseUrl":"https://om.example.net:8443","version":` + strconv.FormatInt(d.Version, 10))
	b.WriteString(`,"auth":{"autoUser":"mms-automation","autoPwd":"` + PlantedConfigSecret + `-1","key":"` + PlantedConfigSecret + `-2"` +
		`,"usersWanted":[{"user":"app","initPwd":"` + PlantedConfigSecret + `-3","roles":[{"db":"admin","role":"read"}],"since":1.0}],"deploymentAuthMechanisms":["SCRAM-SHA-256"],"futureAuth":{"weight":1e3}}`)
	b.WriteString(`,"options":{"downloadBase":"\/var\/lib\/mongodb-mms-automation","ratio":0.10,"big":12345678901234567890123}`)
	b.WriteString(`,"processes":[`)
	for i, m := range d.Members {
		if i > 0 {
			b.WriteByte(',')
		}
		writeProcess(&b, i, m)
	}
	b.WriteString(`],"replicaSets":[`)
	writeReplicaSets(&b, d)
	b.WriteString(`],"sharding":[`)
	writeSharding(&b, d)
	b.WriteString(`],"ldap":{"bindQueryPassword":"` + PlantedConfigSecret + `-4","bindQueryUser":"cn=om","timeoutMS":10000.0}`)
	b.WriteString(`,"future\u0054hing":[null,true,-0,1E+2,"\u00e4\ud83d\ude00",{"deeper":{"still":[1.50]}}]`)
	writeFiller(&b, d.Options.DocumentSize)
	b.WriteByte('}')
	return []byte(b.String())
}

func writeProcess(b *strings.Builder, i int, m *member) {
	kind := "mongod"
	if m.Mongos {
		kind = "mongos"
	}
	fmt.Fprintf(b, `{"name":%q,"processType":%q,"version":"8.0.4","featureCompatibilityVersion":"8.0","authSchemaVersion":5,"hostname":%q`, m.Name, kind, m.Hostname)
	b.WriteString(`,"disabled":false,"manualMode":false,"futureWeight":1.0,"logRotate":{"sizeThresholdMB":1000.0,"timeThresholdHrs":24}`)
	if i%2 == 1 && !m.Mongos {
		b.WriteString(`,"` + rotationField + `":` + previousRotation)
	}
	fmt.Fprintf(b, `,"args2_6":{"net":{"port":%d,"tls":{"mode":"requireTLS","certificateKeyFilePassword":"%s-tls-%d"},"futureNet":1e3}`, m.Port, PlantedConfigSecret, i)
	if m.Mongos {
		b.WriteString(`,"sharding":{"configDB":"config"}`)
	} else {
		fmt.Fprintf(b, `,"storage":{"dbPath":"\/data\/%d","wiredTiger":{"engineConfig":{"cacheSizeGB":0.50}}},"replication":{"replSetName":%q}`, i, m.ReplicaSet)
		fmt.Fprintf(b, `,"security":{"authorization":"enabled","enableEncryption":true,"futureSecurity":{"x":[1.0]}`+
			`,"kmip":{"serverName":"kmip.example.net","port":5696,"serverCAFile":"\/etc\/kmip\/ca.pem","clientCertificateFile":"\/etc\/kmip\/client.pem"`+
			`,"clientCertificatePassword":"%s-kmip-%d","futureKmip":{"retries":3.0}}}`, PlantedConfigSecret, i)
	}
	b.WriteString(`,"futureArgs":[1.0,{}]},"futureProcess":{"name":"not a process","` + rotationField + `":"1999-01-01T00:00:00Z"}}`)
}

// replicaSetsOf gives the members of each replica set, in order.
func (d *deploymentRecord) replicaSetsOf() (names []string, members map[string][]*member) {
	members = map[string][]*member{}
	for _, m := range d.Members {
		if m.Mongos {
			continue
		}
		if members[m.ReplicaSet] == nil {
			names = append(names, m.ReplicaSet)
		}
		members[m.ReplicaSet] = append(members[m.ReplicaSet], m)
	}
	return names, members
}

func writeReplicaSets(b *strings.Builder, d *deploymentRecord) {
	names, members := d.replicaSetsOf()
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"_id":%q,"protocolVersion":"1","members":[`, name)
		for j, m := range members[name] {
			if j > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(b, `{"_id":%d,"host":%q,"priority":1.0,"votes":1,"arbiterOnly":%t,"hidden":false,"futureMember":{"n":1e0}}`, j, m.Name, m.Arbiter)
		}
		b.WriteString(`],"settings":{"heartbeatTimeoutSecs":10.0},"futureSet":null}`)
	}
}

func writeSharding(b *strings.Builder, d *deploymentRecord) {
	written := 0
	for _, cluster := range d.Options.Clusters {
		if cluster.Shards == 0 {
			continue
		}
		if written++; written > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"name":%q,"configServerReplica":%q,"collections":[],"shards":[`, cluster.Name, cluster.Name+"-config")
		for i := range cluster.Shards {
			if i > 0 {
				b.WriteByte(',')
			}
			shard := cluster.Name + "-" + strconv.Itoa(i)
			fmt.Fprintf(b, `{"_id":%q,"rs":%q,"tags":[],"futureShard":1.0}`, shard, shard)
		}
		b.WriteString(`],"futureCluster":{"a":1.0}}`)
	}
}

// writeFiller adds a list of versions, as long as the text has not the size. In
// configurations of Ops Manager, too, such a list is the greatest part.
func writeFiller(b *strings.Builder, size int) {
	if b.Len() >= size {
		return
	}
	b.WriteString(`,"mongoDbVersions":[`)
	for i := 0; b.Len() < size; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"name":"8.0.%d","builds":[{"architecture":"amd64","bits":64,"flavor":"rhel","gitVersion":"%040x","maxOsVersion":"10.0","minOsVersion":"9.0","platform":"linux","url":"https:\/\/fastdl.example.net\/linux\/%d.tgz","weight":1.0}]}`, i, i*7919, i)
	}
	b.WriteByte(']')
}
