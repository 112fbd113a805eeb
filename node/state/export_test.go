package state

// Version1 is the schema of the first version.
const Version1 = containersTable
